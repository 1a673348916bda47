"""Registration: scenes with a known answer in both cameras, a slow reference, properties, and faults."""

from functools import cache

import numpy as np
import pytest
import torch

from d2a2_core.geometry import Camera, Extrinsics, Registration
from d2a2_core.geometry.registration import MAX_CELLS
from d2a2_core.recording import Recording

IDENTITY = Extrinsics(np.eye(3), np.zeros(3))
PLUMB_BOB = ("plumb_bob", (-0.28, 0.09, 1e-3, -2e-3, -0.01))
RATIONAL = ("rational_polynomial", (0.548, -0.021, 2.1e-5, -7.2e-5, -0.0027, 0.89, 0.086, -0.0139))
COLOR_RATIONAL = ("rational_polynomial", (0.33, -2.489, -1.6e-4, -1.3e-4, 1.454, 0.209, -2.303, 1.375))
EQUIDISTANT = ("equidistant", (0.03, -0.01, 4e-3, -1e-3))


def turned(degrees, axis, translation):
    """Extrinsics of a rotation about an axis."""
    axis, half = np.array(axis, float) / np.linalg.norm(axis), np.radians(degrees) / 2
    return Extrinsics.from_quaternion(translation, [*(np.sin(half) * axis), np.cos(half)])


# name: depth camera, target, extrinsics. From 3.3 source pixels per target pixel down to 0.7.
SETTINGS = {
    "none": (
        Camera(320, 288, 252.0, 252.0, 166.0, 150.0),
        Camera(160, 120, 126.0, 126.0, 78.3, 61.1),
        Extrinsics(np.eye(3), [-0.06, 0.002, 0.004]),
    ),
    "rational both, 5 degrees": (
        Camera(640, 576, 504.6, 504.7, 332.8, 348.8, *RATIONAL),
        Camera(1280, 720, 611.8, 611.9, 639.3, 365.9, *COLOR_RATIONAL).reduced(4),
        turned(-4.94, (1, 0, 0), [-0.0321, -0.0022, 0.0039]),
    ),
    "plumb_bob to none, 10 cm": (
        Camera(320, 240, 280.0, 281.0, 158.0, 121.0, *PLUMB_BOB),
        Camera(213, 160, 180.0, 180.0, 105.0, 80.0, "none"),
        turned(3, (0, 1, 0), [0.10, 0.0, 0.0]),
    ),
    "equidistant to plumb_bob, 6 degrees": (
        Camera(320, 288, 170.0, 170.5, 160.2, 143.0, *EQUIDISTANT),
        Camera(180, 120, 150.0, 150.0, 90.5, 60.0, *PLUMB_BOB),
        turned(6, (1, 2, 3), [-0.05, 0.05, -0.02]),
    ),
    "none to equidistant, finer": (
        Camera(160, 144, 126.0, 126.0, 80.0, 72.0),
        Camera(240, 180, 175.0, 175.0, 119.0, 90.0, *EQUIDISTANT),
        turned(-2, (0, 1, 1), [0.06, 0.01, 0.0]),
    ),
}


def plane(normal, distance):
    """Plane normal . x = distance; the least positive z-parameter of each ray that hits it."""
    normal = np.array(normal, float) / np.linalg.norm(normal)

    def hit(origin, rays):
        s = (distance - normal @ origin) / (rays @ normal)
        return np.where(s > 0, s, np.inf)

    return hit


def sphere(centre, radius):
    def hit(origin, rays):
        to = origin - np.array(centre)
        a, b, c = (rays * rays).sum(-1), rays @ to, to @ to - radius**2
        root = np.sqrt(np.where(b * b >= a * c, b * b - a * c, np.nan))
        return np.nan_to_num((-b - root) / a, nan=np.inf)

    return hit


# In the depth camera's frame, metres.
SCENES = {
    "plane": [plane((0, 0, 1), 1.5)],
    "slanted plane": [plane((0.75, 0.3, -1), -1.3)],
    "sphere before a wall": [plane((0.1, 0, 1), 2.2), sphere((0.02, 0.03, 1.1), 0.22)],
}


def cast(scene, camera, extrinsics):
    """z of the scene in a camera (H, W) float64, which object it is (H, W), and the points in the depth camera's frame."""
    back = extrinsics.inverse()
    rays = camera.rays().astype(float)
    rays = np.concatenate((rays, np.ones_like(rays[..., :1])), -1) @ back.rotation.T
    hits = np.stack([hit(back.translation, rays) for hit in SCENES[scene]])
    z = hits.min(0)
    return np.where(np.isfinite(z), z, np.nan), hits.argmin(0), back.translation + z[..., None] * rays


def grow(mask, pixels=1):
    """Pixels whose neighbourhood holds any of the mask."""
    padded = np.pad(mask, pixels)
    size = 2 * pixels + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size)).any((-1, -2))


def shrink(mask, pixels=1):
    return ~grow(~mask, pixels)


def to_tensor(depth):
    return torch.from_numpy(np.asarray(depth, np.float32))[None, None]


@cache
def case_of(scene, setting, noise=0.0):
    return Case(scene, setting, noise)


class Case:
    """A scene in one setting: what registration gives, and what it should."""

    def __init__(self, scene, setting, noise=0.0):
        self.depth_camera, self.target, self.extrinsics = SETTINGS[setting]
        self.depth, _, _ = cast(scene, self.depth_camera, IDENTITY)
        self.depth += noise * np.random.default_rng(0).normal(size=self.depth.shape)
        registration = Registration(self.depth_camera, self.target, self.extrinsics)
        self.result = registration(to_tensor(self.depth))[0, 0].numpy().astype(float)
        self.truth, self.label, points = cast(scene, self.target, self.extrinsics)
        # What the depth camera sees of the places that the target camera sees.
        with np.errstate(all="ignore"):
            self.pixels = self.depth_camera.project(points)
            limit = np.array((self.depth_camera.width, self.depth_camera.height)) - 1.5
            self.inside = ((self.pixels > 0.5) & (self.pixels < limit)).all(-1) & (points[..., 2] > 0)
            rays = points / points[..., 2:]
        nearest = np.stack([hit(np.zeros(3), rays) for hit in SCENES[scene]]).min(0)
        self.hidden = self.inside & (nearest < points[..., 2] - 1e-6)
        edge = grow(self.label == 1) & grow(self.label == 0)
        self.smooth = self.inside & ~self.hidden & ~edge & shrink(self.inside) & ~grow(self.hidden, 2)
        slopes = [np.abs(np.nan_to_num(g)) for g in np.gradient(self.truth)]
        self.slope = np.hypot(*slopes)

    @property
    def error(self):
        return np.abs(self.result - self.truth)[self.smooth]

    def bleeding(self):
        """Background well inside a foreground silhouette, foreground well outside."""
        ball = self.label == 1
        with np.errstate(invalid="ignore"):
            through = shrink(ball) & (self.result > self.truth + 0.1)
            smear = ~grow(ball) & (self.result < self.truth - 0.1)
        return int(through.sum()), int(smear.sum())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scene", SCENES)
def test_known_scene(scene, setting):
    """On smooth surfaces within 0.1 pixel of the target, or a millimetre, of ray casting; and no holes there."""
    case = case_of(scene, setting)
    assert case.smooth.sum() > 0.3 * case.smooth.size
    assert np.isfinite(case.result[case.smooth]).all()
    allowed = np.maximum(1e-3, 0.1 * case.slope[case.smooth])
    assert (case.error <= allowed).all(), case.error.max()
    assert np.median(case.error) < 2e-4


@pytest.mark.parametrize("setting", SETTINGS)
def test_silhouettes_and_shadows(setting):
    """No wall shines through the sphere, no sphere is smeared over the wall, and its shadow stays empty."""
    case = case_of("sphere before a wall", setting)
    assert case.bleeding() == (0, 0)
    assert (shrink(case.label == 1) & np.isfinite(case.result)).sum() > 300
    shadow = shrink(case.hidden)
    if setting != "rational both, 5 degrees":  # 3 cm of baseline at 153 px focal length hide only a line
        assert shadow.sum() > 10
    assert np.isnan(case.result[shadow]).all()


@pytest.mark.parametrize("scale", [1, 2])
def test_background_does_not_shine_through_a_stretched_foreground(scale):
    """A target camera closer by 30 cm sees a near board's points 1.4 times further apart, a far wall's hardly."""
    camera, board, wall, step = Camera(160, 120, 120.0, 120.0, 79.5, 59.5), 1.05, 4.0, 0.3
    depth = np.full((120, 160), wall)
    depth[30:90, 40:120] = board
    target = camera.reduced(scale)
    # Off to the side by 5 cm, so that points of the wall behind the board do land between those of the board.
    extrinsics = Extrinsics(np.eye(3), [0.05, 0.0, -step])
    result = Registration(camera, target, extrinsics)(to_tensor(depth))[0, 0].numpy()
    corners = (np.array([[40, 30], [119, 89]]) - 59.5 - [20, 0]) / 120 * board + [0.05, 0.0]
    low, high = corners / (board - step) * 120 + [79.5, 59.5]
    low, high = np.ceil((low + 0.5) / scale).astype(int) + 1, np.floor((high + 0.5) / scale).astype(int) - 1
    inside = result[low[1] : high[1], low[0] : high[0]]
    assert inside.size > 1000
    assert (inside > board).sum() == 0
    assert np.isfinite(inside).mean() > 0.9


@pytest.mark.parametrize("setting", SETTINGS)
def test_values_are_of_one_surface(setting):
    """No flying pixels: even right at a silhouette every value is the sphere's or the wall's."""
    case = case_of("sphere before a wall", setting)
    back = case.extrinsics.inverse()
    rays = case.target.rays().astype(float)
    rays = np.concatenate((rays, np.ones_like(rays[..., :1])), -1) @ back.rotation.T
    wall = SCENES["sphere before a wall"][0](back.translation, rays)
    valid = np.isfinite(case.result)
    near_wall = np.abs(case.result - wall) < 0.01
    on_sphere = case.result < 1.1 + 0.06  # its limb is at about its centre's distance
    assert (near_wall | on_sphere)[valid].all()


def test_noise_is_averaged_not_selected():
    """The nearest of several noisy values would be off by half of the noise; the mean is not."""
    case = case_of("plane", "rational both, 5 degrees", noise=0.005)
    error = (case.result - case.truth)[case.smooth]
    assert abs(error.mean()) < 1e-4
    assert error.std() < 0.005 / 2.5


@pytest.mark.parametrize("setting", SETTINGS)
def test_slow_reference(setting):
    """depth_image_proc's register node: each pixel's z goes into the one target pixel its centre rounds to.

    It is off by up to half a target pixel on slopes and has gaps; inside smooth surfaces it must agree within that.
    """
    case = case_of("sphere before a wall", setting)
    camera, target = case.depth_camera, case.target
    rays = camera.rays().astype(float)
    points = np.concatenate((rays, np.ones_like(rays[..., :1])), -1) * case.depth[..., None]
    points = case.extrinsics.transform(points).reshape(-1, 3)
    # That node has no lens distortion; far outside the view its polynomial would fold points back into it.
    directions = points[:, :2] / points[:, 2:]
    points = points[(np.abs(directions) < np.abs(target.rays()).max((0, 1)) + 0.01).all(-1)]
    expected = np.full((target.height, target.width), np.inf)
    for (u, v), z in zip(target.project(points), points[:, 2], strict=True):
        col, row = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
        if 0 <= col < target.width and 0 <= row < target.height:
            expected[row, col] = min(expected[row, col], z)
    both = case.smooth & np.isfinite(expected) & np.isfinite(case.result)
    assert both.sum() > 0.2 * both.size
    allowed = 2e-3 + 0.75 * case.slope  # half a pixel along both axes, and some curvature
    difference = np.abs(expected - case.result)
    assert (difference <= allowed)[both].mean() > 0.995
    # And over the whole image, shadows and silhouettes included, it fills hardly a pixel that ours leaves empty.
    assert (np.isfinite(expected) & np.isnan(case.result)).mean() < 0.05


# --- properties -------------------------------------------------------------------------------------------------------


def random_depth(height, width, seed=0):
    depth = np.random.default_rng(seed).uniform(0.5, 5, (height, width)).astype(np.float32)
    depth[np.random.default_rng(seed + 1).random((height, width)) < 0.2] = np.nan
    return depth


@pytest.mark.parametrize("extrinsics", [IDENTITY, Extrinsics(np.eye(3), [0, 0, 1e-9])], ids=["exact", "nearly"])
@pytest.mark.parametrize("model", [("", ()), PLUMB_BOB, RATIONAL, EQUIDISTANT], ids=lambda m: m[0] or "pinhole")
def test_same_view_returns_the_input(model, extrinsics):
    camera = Camera(64, 48, 60.0, 61.0, 31.2, 24.9, *model)
    # Smooth, or the z-buffer rightly closes the pinholes that random depth is full of.
    y, x = np.mgrid[:48, :64]
    depth = (2 + 0.3 * np.sin(x / 9) + 0.2 * np.cos(y / 7)).astype(np.float32)
    depth[10:20, 30:50] = 0.8
    depth[30:33, 5:9] = np.nan
    result = Registration(camera, camera, extrinsics)(to_tensor(depth))[0, 0].numpy()
    np.testing.assert_allclose(result, depth, atol=1e-6, rtol=0)


def test_same_view_leaves_anything_alone():
    camera = Camera(64, 48, 60.0, 61.0, 31.2, 24.9)
    depth = random_depth(48, 64)
    result = Registration(camera, camera, IDENTITY)(to_tensor(depth))[0, 0].numpy()
    np.testing.assert_array_equal(result, depth)


@pytest.mark.parametrize("pixels", [3, -7, 2.5])
def test_flat_scene_shifts_by_f_t_over_z(pixels):
    """A fronto-parallel scene at z moves by fx tx / z pixels; a mark in it (a hole) shows by how much."""
    camera, z = Camera(96, 64, 80.0, 80.0, 47.5, 31.5), 1.6
    depth = np.full((64, 96), z, np.float32)
    depth[20:30, 40:60] = np.nan
    shift = Extrinsics(np.eye(3), [pixels * z / 80.0, 0, 0])
    valid = np.isfinite(Registration(camera, camera, shift)(to_tensor(depth))[0, 0].numpy())
    seen = slice(max(0, int(np.ceil(pixels))), 96 + min(0, int(np.floor(pixels))))
    if pixels == int(pixels):
        np.testing.assert_array_equal(valid[:, seen], np.isfinite(np.roll(depth, int(pixels), axis=1))[:, seen])
    hole = np.argwhere(~valid[24, seen])[:, 0] + seen.start
    assert hole.mean() == pytest.approx(49.5 + pixels, abs=0.5 * (pixels != int(pixels)))


def test_shift_along_z_is_added():
    camera = Camera(96, 64, 80.0, 80.0, 47.5, 31.5)
    result = Registration(camera, camera.reduced(2), Extrinsics(np.eye(3), [0, 0, 0.25]))(
        torch.full((1, 1, 64, 96), 2.0)
    )
    values = result[torch.isfinite(result)]
    assert len(values) > 1000
    torch.testing.assert_close(values, torch.full_like(values, 2.25), atol=1e-6, rtol=0)


def test_ramp_survives_a_fractional_shift():
    """1 / z is linear in pixels on a plane; at a shift of a fraction of a pixel the registered plane is the same plane."""
    case = case_of("slanted plane", "none")
    inverse = 1 / case.result[shrink(case.smooth)]
    v, u = np.argwhere(shrink(case.smooth)).T
    basis = np.stack((u, v, np.ones_like(u)), axis=-1).astype(float)
    residual = basis @ np.linalg.lstsq(basis, inverse, rcond=None)[0] - inverse
    assert np.abs(residual).max() < 2e-4


@pytest.mark.parametrize("setting", ["none", "none to equidistant, finer"])
def test_batch_is_image_by_image(setting):
    depth_camera, target, extrinsics = SETTINGS[setting]
    registration = Registration(depth_camera, target, extrinsics)
    batch = torch.cat([to_tensor(cast(scene, depth_camera, IDENTITY)[0]) for scene in SCENES])
    together = registration(batch)
    assert together.shape == (3, 1, target.height, target.width)
    for image, alone in zip(together, (registration(d[None]) for d in batch), strict=True):
        torch.testing.assert_close(image, alone[0], equal_nan=True, atol=1e-6, rtol=0)


@pytest.mark.parametrize("setting", ["none", "none to equidistant, finer"])
def test_holes_stay_holes(setting):
    depth_camera, target, extrinsics = SETTINGS[setting]
    registration = Registration(depth_camera, target, extrinsics)
    assert torch.isnan(registration(torch.full((2, 1, depth_camera.height, depth_camera.width), torch.nan))).all()
    depth = np.full((depth_camera.height, depth_camera.width), 1.5)
    rows, cols = slice(60, 90), slice(60, 100)
    depth[rows, cols] = np.nan
    result = registration(to_tensor(depth))[0, 0].numpy()
    # The hole's place in the target, from where its corners go.
    corners = np.array([(u, v) for u in (cols.start, cols.stop - 1) for v in (rows.start, rows.stop - 1)])
    rays = depth_camera.rays().astype(float)[corners[:, 1], corners[:, 0]]
    places = target.project(extrinsics.transform(1.5 * np.concatenate((rays, np.ones((4, 1))), -1)))
    low, high = np.ceil(places.min(0)).astype(int) + 3, np.floor(places.max(0)).astype(int) - 3
    assert (high - low > 3).all()
    assert np.isnan(result[low[1] : high[1], low[0] : high[0]]).all()
    assert np.isfinite(result[low[1] - 9, low[0] : high[0]]).all()


def test_nothing_beyond_the_view_is_folded_into_it():
    """This distortion's polynomial brings wide rays back to the centre; what it brings is not seen there."""
    depth_camera = Camera(200, 60, 30.0, 60.0, 99.5, 29.5)  # 146 degrees wide
    target = Camera(64, 48, 60.0, 60.0, 31.5, 23.5, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    depth = np.full((60, 200), 2.0, np.float32)
    depth[:, :60] = 0.5
    depth[:, 140:] = 0.5
    wide = np.abs(depth_camera.rays()[30, 60, 0])
    assert wide > np.nanmax(np.abs(target.rays()[..., 0]))
    result = Registration(depth_camera, target, IDENTITY)(to_tensor(depth))
    assert torch.isfinite(result).any()
    assert result[torch.isfinite(result)].min() > 1.99


def test_one_value_per_device_is_kept():
    registration = Registration(*SETTINGS["none"])
    depth = to_tensor(case_of("plane", "none").depth)
    first = registration(depth)
    assert len(registration._cache) == 1
    assert torch.equal(first.nan_to_num(), registration(depth).nan_to_num())
    assert len(registration._cache) == 1


# --- extrinsics -------------------------------------------------------------------------------------------------------


def test_quaternion_known_answers():
    half = np.sqrt(0.5)
    about_z = Extrinsics.from_quaternion([1, 2, 3], [0, 0, half, half])  # x becomes y
    np.testing.assert_allclose(about_z.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(about_z.transform(np.array([1.0, 0, 0])), [1, 3, 3], atol=1e-12)
    about_x = Extrinsics.from_quaternion([0, 0, 0], [half, 0, 0, half])  # y becomes z
    np.testing.assert_allclose(about_x.transform(np.array([0.0, 1, 0])), [0, 0, 1], atol=1e-12)


def test_quaternion_is_scipys():
    transform = pytest.importorskip("scipy.spatial.transform")
    for quaternion in np.random.default_rng(0).normal(size=(10, 4)):
        quaternion /= np.linalg.norm(quaternion)
        expected = transform.Rotation.from_quat(quaternion).as_matrix()
        np.testing.assert_allclose(Extrinsics.from_quaternion([0, 0, 0], quaternion).rotation, expected, atol=1e-12)


def test_values_seven_and_twelve():
    pose = turned(6, (1, 2, 3), [0.1, -0.2, 0.3])
    matrix = np.concatenate((pose.rotation, pose.translation[:, None]), axis=1)
    assert Extrinsics.from_values(matrix.ravel().tolist()) == pose
    seven = Extrinsics.from_values([0.1, -0.2, 0.3, 0, 0, 0.6, 0.8])
    assert seven == Extrinsics.from_quaternion([0.1, -0.2, 0.3], [0, 0, 0.6, 0.8])
    with pytest.raises(ValueError, match=r"expected 7 numbers \(tx ty tz qx qy qz qw\) or 12 .*, got 9"):
        Extrinsics.from_values([0.0] * 9)


def test_inverse_and_identity():
    pose = turned(6, (1, 2, 3), [0.1, -0.2, 0.3])
    points = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_allclose(pose.inverse().transform(pose.transform(points)), points, atol=1e-12)
    assert not pose.is_identity()
    assert IDENTITY.is_identity(0.0)
    assert Extrinsics(np.eye(3), [0, 0, 1e-4]).is_identity(1e-3)
    assert not Extrinsics(np.eye(3), [0, 0, 1e-4]).is_identity(1e-5)
    assert not turned(1, (0, 0, 1), [0, 0, 0]).is_identity(1e-2)
    assert hash(pose) == hash(turned(6, (1, 2, 3), [0.1, -0.2, 0.3]))
    with pytest.raises(ValueError, match="read-only"):
        pose.rotation[0, 0] = 2


def test_rounded_rotations_are_made_orthonormal():
    exact = turned(6, (1, 2, 3), [0, 0, 0]).rotation
    rounded = Extrinsics(exact.round(4), [0, 0, 0])
    assert np.abs(exact.round(4) @ exact.round(4).T - np.eye(3)).max() > 1e-6
    np.testing.assert_allclose(rounded.rotation @ rounded.rotation.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rounded.rotation, exact, atol=1e-4)


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        (np.eye(3) * 1.01, [0, 0, 0], r"orthonormal rotation matrix, but R R\^T is off the identity by 0\.0201"),
        (np.diag([1, 1, -1]), [0, 0, 0], r"determinant \+1, got -1\.000.*mirrors; check the signs"),
        (np.full((3, 3), np.nan), [0, 0, 0], "finite numbers in rotation"),
        (np.eye(3), [0, np.inf, 0], "finite numbers in translation"),
        (np.eye(4), [0, 0, 0], r"rotation of shape \(3, 3\), got \(4, 4\)"),
        (np.eye(3), [0, 0], r"translation of shape \(3,\), got \(2,\)"),
        (np.eye(3), "abc", "translation as numbers"),
        (np.zeros((3, 3)), [0, 0, 0], "orthonormal"),
    ],
)
def test_bad_extrinsics(rotation, translation, message):
    with pytest.raises(ValueError, match=message):
        Extrinsics(rotation, translation)


def test_bad_quaternion():
    with pytest.raises(ValueError, match=r"length 1, got .* of length 0; no rotation is 0 0 0 1"):
        Extrinsics.from_quaternion([0, 0, 0], [0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        Extrinsics.from_quaternion([0, 0, 0], [0, 0, 0])


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extrinsics",
    [turned(180, (0, 1, 0), [0, 0, 0]), Extrinsics(np.eye(3), [0, 0, -5.0]), Extrinsics(np.eye(3), [32.0, -2.0, 4.0])],
    ids=["turned round", "in front of everything", "millimetres"],
)
def test_views_with_nothing_in_common(extrinsics):
    depth_camera, target, _ = SETTINGS["none"]
    with pytest.raises(
        ValueError, match=r"nothing that the depth camera sees .* in metres .*: check the direction, the unit"
    ):
        Registration(depth_camera, target, extrinsics)


def test_depth_of_another_shape_or_type():
    registration = Registration(*SETTINGS["none"])
    for shape in [(1, 1, 320, 288), (288, 320), (1, 2, 288, 320)]:
        with pytest.raises(ValueError, match=r"expected depth \(B, 1, 288, 320\), the size of its camera, got"):
            registration(torch.ones(shape))
    with pytest.raises(ValueError, match=r"float metres, got torch\.int16; divide millimetres by 1000"):
        registration(torch.ones((1, 1, 288, 320), dtype=torch.int16))


def cells(registration):
    """Cells of the refined depth and of the z-buffer."""
    source, (height, width) = registration.depth_camera, registration._size
    return registration._factor**2 * source.width * source.height, registration._z_cells**2 * height * width


@pytest.mark.parametrize("seed", range(6))
def test_whatever_cameras_claim_memory_is_bounded(seed):
    """Sizes, focal lengths and extrinsics over many orders of magnitude: few cells, or a coded error."""
    rng = np.random.default_rng(seed)
    done, refused = 0, set()
    for _ in range(60):
        cameras = []
        for _ in range(2):
            width, height = (int(v) for v in 2 ** rng.uniform(2, 9, 2))
            f = max(width, height) * 10 ** rng.uniform(-1.5, 3.5)
            distortion = tuple(rng.normal(0, 10.0 ** rng.integers(-3, 4), 5))
            try:
                cameras.append(Camera(width, height, f, f, width / 2, height / 2, "plumb_bob", distortion))
            except ValueError as error:
                refused.add(str(error)[:24])
        if len(cameras) < 2:
            continue
        move = Extrinsics(np.eye(3), rng.normal(0, 10.0 ** rng.integers(-3, 3), 3))
        try:
            registration = Registration(*cameras, move)
        except ValueError as error:
            refused.add(getattr(error, "code", str(error)[:24]))
            continue
        done += 1
        pixels = [camera.width * camera.height for camera in cameras]
        assert cells(registration)[0] <= max(MAX_CELLS, pixels[0])
        assert cells(registration)[1] <= max(MAX_CELLS, 2 * pixels[1])
    assert done > 3
    assert refused <= {"camera is not calibrated", "no_common_view", "spread", "impossible_distortion"}


@pytest.mark.parametrize("focal", [(30.0, 500.0), (500.0, 270000.0), (270000.0, 500.0)], ids=str)
def test_focal_lengths_of_another_unit_are_refused_or_bounded(focal):
    """Just within what a camera may be: 169 degrees, or a tenth of one."""
    source, target = (
        Camera(640, 480, focal[0], focal[0], 320, 240),
        Camera(1280, 720, focal[1], focal[1], 640, 360).reduced(4),
    )
    try:
        registration = Registration(source, target, Extrinsics(np.eye(3), [0.0, 0.0, 0.0]))
    except ValueError as error:
        assert error.code == "spread"  # noqa: PT017
    else:
        assert max(cells(registration)) <= MAX_CELLS


@pytest.mark.parametrize("move", [1e9, 1e160, 1e300])
def test_extrinsics_beyond_arithmetic_are_refused(move):
    with pytest.raises(ValueError, match="nothing that the depth camera sees"):
        Registration(*SETTINGS["none"][:2], Extrinsics(np.eye(3), [move, move, move]))


def test_a_depth_camera_whose_distortion_is_impossible_is_named():
    impossible = Camera(64, 48, 60.0, 60.0, 300.0, 300.0, "plumb_bob", (-1e9, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="no pixel of Camera"):
        Registration(impossible, SETTINGS["none"][1], IDENTITY)


@pytest.mark.parametrize("distortion", [(-0.28, 0.09), (-0.28, 0.09, 0.0, 0.0)], ids=len)
def test_short_distortion_vectors(distortion):
    """Trailing zeros may be left out."""
    depth_camera, _, extrinsics = SETTINGS["none"]
    depth = to_tensor(case_of("slanted plane", "none").depth)
    full = Camera(160, 120, 126.0, 126.0, 78.3, 61.1, "plumb_bob", (*distortion, *(0.0,) * (5 - len(distortion))))
    short = Camera(160, 120, 126.0, 126.0, 78.3, 61.1, "plumb_bob", distortion)
    results = [Registration(depth_camera, camera, extrinsics)(depth).nan_to_num() for camera in (full, short)]
    assert torch.equal(*results)


# --- recorded ---------------------------------------------------------------------------------------------------------


def test_recorded_raw_pair(shared):
    recording = Recording(shared / "data" / "azure_kinect_mug")
    pose = recording.calibration["depth_to_color"]
    extrinsics = Extrinsics(np.reshape(pose["R"], (3, 3)), pose["t"])
    depth_camera, color_camera = recording.camera("depth"), recording.camera("color")
    depth = recording[0].depth
    target = color_camera.reduced(4)
    registration = Registration(depth_camera, target, extrinsics)
    result = registration(to_tensor(depth))[0, 0].numpy()
    everything = registration(torch.full((1, 1, *depth.shape), float(np.nanmedian(depth))))[0, 0].numpy()
    seen = np.isfinite(everything)
    assert result.shape == (180, 320)
    assert np.isfinite(result[seen]).mean() > 0.5
    assert 0.1 < np.nanmin(result) < np.nanmax(result) < 6


def test_a_wall_does_not_leak_through_a_hole_in_the_measurements():
    """A plate at 1 m covers the wall that the depth camera sees beside it; a piece of the plate was not measured."""
    camera = Camera(160, 120, 126.0, 126.0, 80.0, 60.0)
    depth = torch.full((1, 1, 120, 160), 3.0)
    depth[..., :80] = 1.0
    depth[..., 60:63, 74:77] = torch.nan
    register = Registration(camera, camera.reduced(2), Extrinsics(np.eye(3), [12 / 126, 0.0, 0.0]))
    result = register(depth)[0, 0, :, 6:45]  # the plate, 6 LR pixels to the right
    assert result[~result.isnan()].max() < 1.01
    assert result.isnan().sum() <= 4
    whole = torch.full((1, 1, 120, 160), 1.0)  # an opening that was measured stays, if it is more than a pixel
    whole[..., 60:66, 74:80] = 3.0
    assert (Registration(camera, camera.reduced(2), IDENTITY)(whole) == 3.0).sum() == 9
