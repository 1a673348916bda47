"""Cameras: projection and its inverse, OpenCV as the reference, resizing, and clouds."""

import array
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from d2a2_core.geometry import Camera, back_project, write_ply
from d2a2_core.geometry.cloud import in_the_air
from d2a2_core.messages.camera_info import camera_from_info, is_rectified, rectified_info, with_usable_k

PLAIN = Camera(64, 48, 60.0, 61.0, 31.2, 24.9)
CAMERAS = {
    "pinhole": PLAIN,
    "none": Camera(64, 48, 60.0, 61.0, 31.2, 24.9, "none", (0.3, 0.1)),
    "plumb_bob": Camera(64, 48, 60.0, 61.0, 31.2, 24.9, "plumb_bob", (-0.28, 0.09, 1e-3, -2e-3, -0.01)),
    "plumb_bob of 4": Camera(64, 48, 60.0, 61.0, 31.2, 24.9, "plumb_bob", (-0.28, 0.09, 1e-3, -2e-3)),
    "rational_polynomial": Camera(
        64, 48, 60.0, 61.0, 31.2, 24.9, "rational_polynomial", (0.42, -2.29, 9.8e-4, -4.5e-4, 1.24, 0.30, -2.13, 1.18)
    ),
    "equidistant": Camera(64, 48, 25.0, 25.5, 31.2, 24.9, "equidistant", (0.03, -0.01, 4e-3, -1e-3)),
}


@pytest.fixture(params=CAMERAS, ids=str)
def camera(request):
    return CAMERAS[request.param]


def pixel_grid(camera):
    v, u = np.mgrid[: camera.height, : camera.width]
    return np.stack((u, v), axis=-1).astype(float)


def points_at(camera, depth=1.0):
    """Points at ``depth`` on the ray of every pixel, (H, W, 3) float64."""
    rays = camera.rays().astype(float)
    return depth * np.concatenate((rays, np.ones((*rays.shape[:2], 1))), axis=-1)


def some_points(count=200):
    rng = np.random.default_rng(0)
    z = rng.uniform(0.3, 8, count)
    return np.stack((z * rng.uniform(-0.6, 0.6, count), z * rng.uniform(-0.45, 0.45, count), z), axis=-1)


@pytest.mark.parametrize("depth", [0.4, 7.0])
def test_rays_and_projection_are_inverse(camera, depth):
    np.testing.assert_allclose(camera.project(points_at(camera, depth)), pixel_grid(camera), atol=1e-3)


def test_rays_of_recorded_cameras(shared):
    for name in ("azure_kinect_mug", "azure_kinect_lab"):
        calibration = json.loads((shared / "data" / name / "calibration.json").read_text())
        for which in {"color", "depth"} & set(calibration):
            entry = calibration[which]
            k = entry["K"]
            camera = Camera(
                entry["width"], entry["height"], k[0], k[4], k[2], k[5], entry["distortion_model"], tuple(entry["D"])
            )
            error = camera.project(points_at(camera)) - pixel_grid(camera)
            assert np.abs(error).max() < 1e-3, (name, which)


def test_projection_is_opencvs(camera):
    cv2 = pytest.importorskip("cv2")
    points, matrix = some_points(), np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    zero = np.zeros(3)
    if camera.model == "equidistant":
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, matrix, np.array(camera.distortion))
    else:
        coefficients = np.array(camera.distortion if camera.model not in ("", "none") else (0.0,) * 5)
        expected, _ = cv2.projectPoints(points[:, None], zero, zero, matrix, coefficients)
    np.testing.assert_allclose(camera.project(points), expected.reshape(-1, 2), atol=1e-6)


def test_known_rays():
    camera = Camera(4, 3, 2.0, 4.0, 1.0, 0.5)
    assert camera.rays()[0, 0].tolist() == [-0.5, -0.125]
    assert camera.rays()[2, 3].tolist() == [1.0, 0.375]
    assert camera.rays().shape == (3, 4, 2)
    assert camera.project(np.array([0.0, 0.0, 5.0])).tolist() == [1.0, 0.5]


def test_centre_of_a_fisheye():
    """Zero angle is a removable singularity of the formula."""
    camera = Camera(5, 5, 10, 10, 2, 2, "equidistant", (0.1, 0, 0, 0))
    assert camera.project(np.array([0.0, 0.0, 1.0])).tolist() == [2.0, 2.0]
    assert camera.rays()[2, 2].tolist() == [0.0, 0.0]


def test_no_rays_beyond_the_reach_of_the_model():
    """A fisheye's corners beyond 90 degrees have no x / z; they must come out as NaN, not as some far-off number."""
    camera = Camera(80, 80, 25.0, 25.0, 39.5, 39.5, "equidistant", (0.01, -0.002, 0.0, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rays = camera.rays()
    valid = np.isfinite(rays).all(axis=-1)
    assert (valid | np.isnan(rays).all(axis=-1)).all()
    radius = np.hypot(*np.moveaxis(pixel_grid(camera) - 39.5, -1, 0)) / 25.0  # the distorted angle
    theta = np.pi / 2
    limit = theta * (1 + 0.01 * theta**2 - 0.002 * theta**4)
    assert valid[radius < limit - 0.05].all()
    assert not valid[radius > limit + 0.001].any()
    # At 87 degrees a float32 ray still gives its pixel back to a hundredth.
    error = (camera.project(points_at(camera)) - pixel_grid(camera))[radius < limit - 0.05]
    assert np.abs(error).max() < 0.01


def test_no_rays_beyond_the_fold_of_strong_barrel_distortion():
    """x (1 - 0.6 x^2) never exceeds 0.497, so pixels further out belong to no ray."""
    camera = Camera(64, 48, 32.0, 32.0, 31.5, 23.5, "plumb_bob", (-0.6, 0.0, 0.0, 0.0, 0.0))
    rays = camera.rays()
    radius = np.hypot(*np.moveaxis(pixel_grid(camera) - [31.5, 23.5], -1, 0)) / 32.0
    fold = np.sqrt(1 / 1.8)
    limit = fold * (1 - 0.6 * fold**2)
    assert np.isnan(rays[radius > limit + 0.01]).all()
    inside = radius < limit - 0.03
    assert (np.hypot(*np.moveaxis(rays[inside], -1, 0)) < fold).all()


def test_rays_are_shared_and_protected(camera):
    assert camera.rays() is camera.rays()
    assert camera.rays().dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        camera.rays()[0, 0] = 0


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (96, 36), (100, 31)], ids=str)
def test_resizing_keeps_what_a_pixel_sees(camera, size):
    """A point at pixel u of the image lies at (u + 0.5) s - 0.5 of the resized one, lens distortion included."""
    small, points = camera.resized(*size), some_points()
    factor = np.array(size) / (camera.width, camera.height)
    assert (small.width, small.height) == size
    np.testing.assert_allclose(small.project(points), (camera.project(points) + 0.5) * factor - 0.5, atol=1e-9)


def test_resized_known_answer_and_back():
    half = Camera(640, 480, 500.0, 510.0, 319.5, 239.5).resized(320, 240)
    assert (half.fx, half.fy, half.cx, half.cy) == (250.0, 255.0, 159.5, 119.5)  # the centre stays the centre
    again = half.resized(640, 480)
    assert (again.fx, again.fy, again.cx, again.cy) == (500.0, 510.0, 319.5, 239.5)


@pytest.mark.parametrize(("scale", "size"), [(1, (64, 48)), (4, (16, 12)), (5, (13, 10)), (16, (4, 3)), (100, (1, 1))])
def test_reduced_has_cells_of_whole_pixels(camera, scale, size):
    """Cell (i, j) is made of pixels i s to i s + s - 1; the last cells may stick out of the image."""
    small, points = camera.reduced(scale), some_points()
    assert (small.width, small.height) == size
    np.testing.assert_allclose(small.project(points), (camera.project(points) + 0.5) / scale - 0.5, atol=1e-9)
    assert camera.reduced(1) == camera


@pytest.mark.parametrize("scale", [0, -2, 2.5, np.nan])
def test_reduced_by_no_scale(camera, scale):
    with pytest.raises(ValueError, match="expected a whole scale of at least 1, got"):
        camera.reduced(scale)


def test_distorted():
    assert not PLAIN.distorted
    assert not CAMERAS["none"].distorted
    assert not Camera(4, 4, 1, 1, 0, 0, "plumb_bob", (0.0,) * 5).distorted
    assert CAMERAS["plumb_bob"].distorted


@pytest.mark.parametrize("focal", [0.0, -5.0, np.nan, np.inf])
def test_uncalibrated_camera_is_refused(focal):
    with pytest.raises(ValueError, match=r"not calibrated.*expected a positive focal length"):
        Camera(64, 48, focal, 60.0, 31.0, 24.0)
    with pytest.raises(ValueError, match="not calibrated"):
        Camera(64, 48, 60.0, focal, 31.0, 24.0)


def test_bad_cameras_are_named():
    with pytest.raises(ValueError, match="at least 1 x 1 pixels, got 0 x 48"):
        Camera(0, 48, 60.0, 60.0, 31.0, 24.0)


@pytest.mark.parametrize(
    ("size", "k", "view"),
    [
        ((640, 480), (1, 1, 0, 0), "179.8 degrees"),
        ((640, 480), (0.9, 0.9, 320, 240), "179.7"),
        ((640, 480), (3.04, 3.04, 320, 240), "178.9"),  # a focal length in millimetres
        ((640, 480), (1e-300, 1e-300, 0, 0), "180"),
        ((640, 480), (27, 27, 319.5, 239.5), "170.4"),
        ((640, 480), (500, 2, 319.5, 239.5), "fy=2 and cy=239.5 for 480 pixels"),
        ((640, 480), (500, 500, 1e6, 239.5), "cx=1e\\+06"),
        ((640, 480), (6e5, 6e5, 320, 240), "0.061"),  # in micrometres
        ((640, 480), (1e300, 1e300, 320, 240), "expected 0.1 to 170: check K, which is in pixels"),
    ],
)
def test_views_that_no_camera_has(size, k, view):
    with pytest.raises(ValueError, match=view) as caught:
        Camera(*size, *k)
    assert "not calibrated" in str(caught.value)


def test_views_that_cameras_have():
    assert Camera(640, 480, 29.0, 29.0, 319.5, 239.5).fx == 29  # 169.6 degrees
    assert Camera(640, 480, 110.0, 110.0, 319.5, 239.5, "fisheye").distorted  # 333 degrees
    with pytest.raises(ValueError, match=r"366\.7 degrees; expected 0\.1 to 360"):
        Camera(640, 480, 100.0, 100.0, 319.5, 239.5, "fisheye")
    assert Camera(8, 8, 1500.0, 1500.0, -700.0, 100.0).fx == 1500  # a few pixels cut from a corner


def test_more_coefficients_than_are_modelled():
    """OpenCV's thin prism and tilt coefficients (the 9th on) cannot be ignored unless they are zero."""
    rational = CAMERAS["rational_polynomial"].distortion
    padded = Camera(64, 48, 60.0, 61.0, 31.2, 24.9, "rational_polynomial", (*rational, 0.0, 0.0, 0.0, 0.0))
    np.testing.assert_array_equal(padded.project(some_points()), CAMERAS["rational_polynomial"].project(some_points()))
    with pytest.raises(ValueError, match="coefficients"):
        Camera(64, 48, 60.0, 61.0, 31.2, 24.9, "rational_polynomial", (*rational, 0.01))


# --- clouds -----------------------------------------------------------------------------------------------------------


def test_back_projection_known_answer():
    camera = Camera(4, 3, 2.0, 4.0, 1.0, 0.5)
    depth = np.full((3, 4), 2.0, np.float32)
    depth[1, 1] = np.nan
    points = back_project(depth, camera)
    assert points.shape == (3, 4, 3)
    assert points.dtype == np.float32
    assert points[0, 0].tolist() == [-1.0, -0.25, 2.0]
    assert points[2, 3].tolist() == [2.0, 0.75, 2.0]
    assert np.isnan(points[1, 1]).all()
    assert np.isfinite(points).all(axis=-1).sum() == 11


def test_back_projection_and_projection(camera):
    depth = np.random.default_rng(0).uniform(0.5, 5, (camera.height, camera.width)).astype(np.float32)
    points = back_project(depth, camera)
    np.testing.assert_array_equal(points[..., 2], depth)
    np.testing.assert_allclose(camera.project(points.astype(float)), pixel_grid(camera), atol=2e-3)


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_stride_takes_the_same_points(stride):
    depth = np.random.default_rng(0).uniform(0.5, 5, (48, 64)).astype(np.float32)
    points = back_project(depth, PLAIN, stride)
    assert points.shape == (-(-48 // stride), -(-64 // stride), 3)
    np.testing.assert_array_equal(points, back_project(depth, PLAIN)[::stride, ::stride])


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"depth is 48x64, its camera 64x48; use camera\.resized"):
        back_project(np.ones((64, 48), np.float32), PLAIN)


def test_ply_holds_the_finite_points(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 6, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    points[1, 2] = np.nan
    points[4, 0, 1] = np.inf
    assert write_ply(tmp_path / "cloud.ply", points, colors) == 28
    header, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 28"]
    names = [line.split() for line in lines if line.startswith("property")]
    kinds = {"float": "<f4", "uchar": "u1"}
    table = np.frombuffer(body, [(name, kinds[kind]) for _, kind, name in names])
    keep = np.isfinite(points).all(axis=-1)
    np.testing.assert_array_equal(np.stack([table[a] for a in "xyz"], -1), points[keep])
    np.testing.assert_array_equal(np.stack([table[c] for c in ("red", "green", "blue")], -1), colors[keep])


def test_ply_is_read_by_trimesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    colors = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write_ply(tmp_path / "cloud.ply", points, colors)
    cloud = trimesh.load(tmp_path / "cloud.ply")
    np.testing.assert_array_equal(cloud.vertices, points)
    np.testing.assert_array_equal(cloud.colors[:, :3], colors)


def test_empty_cloud(tmp_path):
    points = np.full((2, 2, 3), np.nan, np.float32)
    assert write_ply(tmp_path / "empty.ply", points, np.zeros((2, 2, 3), np.uint8)) == 0
    assert b"element vertex 0" in (tmp_path / "empty.ply").read_bytes()


def raw_info(p=(55.0, 0, 20.0, 0, 0, 56.0, 14.0, 0, 0, 0, 1, 0), d=(-0.2, 0.1, 0.0, 0.0, 0.0)):
    """A camera info with distortion whose rectified image has another focal length and centre, as a ROS message has it."""
    return SimpleNamespace(
        width=48, height=32, distortion_model="plumb_bob", d=array.array("d", d), r=np.arange(9.0), p=np.array(p, float),
        k=np.array([40.0, 0, 23.5, 0, 41.0, 15.5, 0, 0, 1]),
    )  # fmt: skip


def test_a_rectified_image_is_described_by_p():
    info = raw_info()
    out = rectified_info(info)
    assert camera_from_info(out) == Camera(48, 32, 55.0, 56.0, 20.0, 14.0, "plumb_bob", (0.0,) * 5)
    np.testing.assert_array_equal(out.r, np.eye(3).ravel())
    np.testing.assert_array_equal(out.p, info.p)
    assert info.d[0] == -0.2  # the message itself belongs to others
    assert info.k[0] == 40.0


def test_an_info_without_distortion_is_taken_as_it_is_and_one_without_p_refused():
    plain = raw_info(d=(0.0,) * 5)
    assert rectified_info(plain) is plain
    with pytest.raises(ValueError, match="no projection matrix P"):
        rectified_info(raw_info(p=(0,) * 12))


NO_K = {
    "zero": np.zeros(9),
    "identity": np.eye(3).ravel(),
    "millimetres": np.array([3.04, 0, 23.5, 0, 3.04, 15.5, 0, 0, 1]) / 10,
    "nan": np.full(9, np.nan),
}


@pytest.mark.parametrize("k", NO_K.values(), ids=NO_K.keys())
@pytest.mark.parametrize("d", [(), (0.0,) * 5, (-0.2, 0.1, 0.0, 0.0, 0.0)], ids=["no D", "D of zeros", "D"])
def test_where_k_is_no_calibration_p_is_taken_and_that_is_said(k, d):
    info = raw_info(d=d)
    info.k = k.copy()
    out, said = with_usable_k(info)
    assert camera_from_info(out) == Camera(48, 32, 55.0, 56.0, 20.0, 14.0, "plumb_bob", d)
    assert "P is taken in its place" in said
    assert ("may be some pixels off" in said) == any(d)
    np.testing.assert_array_equal(info.k, k)
    # A rectified image is P's in any case.
    assert camera_from_info(with_usable_k(rectified_info(info))[0]) == Camera(48, 32, 55.0, 56.0, 20.0, 14.0)


@pytest.mark.parametrize("p", [(0,) * 12, (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)], ids=["zero", "identity"])
@pytest.mark.parametrize("k", NO_K.values(), ids=NO_K.keys())
def test_without_k_and_p_there_is_no_camera(k, p):
    info = raw_info(p=p)
    info.k = k
    assert with_usable_k(info) == (info, "")
    with pytest.raises(ValueError, match="not calibrated"):
        camera_from_info(info)


def test_a_usable_k_is_left_alone():
    info = raw_info()
    assert with_usable_k(info) == (info, "")


def test_the_identity_is_no_calibration_even_of_a_tiny_image():
    info = raw_info(p=(0,) * 12)
    info.width = info.height = 8
    info.k = np.eye(3).ravel()
    with pytest.raises(ValueError, match="K is the identity matrix"):
        camera_from_info(info)


def test_a_rectified_fisheye_is_described_by_p_even_without_coefficients():
    info = raw_info(d=())
    info.distortion_model = "equidistant"
    assert camera_from_info(info).distorted
    assert camera_from_info(rectified_info(info)) == Camera(48, 32, 55.0, 56.0, 20.0, 14.0)


@pytest.mark.parametrize(
    ("setting", "which", "topic", "expected"),
    [
        ("auto", "color", "/camera/image_rect", True),
        ("auto", "color", "/camera/image_rect_color", True),
        ("auto", "depth", "/zed/depth/rect/image", True),
        ("auto", "depth", "/kinect/Depth_Rectified", True),
        ("auto", "color", "/camera/image_raw", False),
        ("auto", "color", "/correct/direct/image", False),
        ("none", "color", "/camera/image_rect", False),
        ("color", "color", "/camera/image_raw", True),
        ("color", "depth", "/camera/image_rect", False),
        ("both", "depth", "/camera/image_raw", True),
    ],
)
def test_which_images_are_rectified(setting, which, topic, expected):
    assert is_rectified(setting, which, topic) is expected


# -- points in the air -----------------------------------------------------------------------------------------------------


def tilted(degrees, camera, axis, metres=2.0):
    """Depth of a plane through the optical axis at ``metres``, seen at an angle, rising along x (1) or y (0)."""
    rays = camera.rays()[..., 1 - axis]
    tangent = np.tan(np.radians(degrees))
    return (metres / (1 - tangent * rays)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("degrees", "floats"), [(0, False), (70, False), (80, False), (86, True)])
def test_surfaces_are_no_points_in_the_air_unless_hardly_seen(degrees, floats, axis):
    camera = Camera(60, 44, 500.0, 500.0, 29.5, 21.5)
    depth = tilted(degrees, camera, axis)
    middle = in_the_air(depth, camera)[20:24, 28:32]
    assert middle.all() if floats else not middle.any()


def test_a_ramp_between_two_surfaces_is_in_the_air_and_their_edges_are_not():
    camera = Camera(40, 30, 500.0, 500.0, 19.5, 14.5)
    row = np.concatenate((np.full(18, 1.0), [1.2, 1.5, 1.8], np.full(19, 2.0))).astype(np.float32)
    floating = in_the_air(np.tile(row, (30, 1)), camera)
    assert np.flatnonzero(floating[15]).tolist() == [18, 19, 20]
    assert (floating == floating[15]).all()
    sharp = np.tile(np.where(np.arange(40) < 20, np.float32(1), np.float32(2)), (30, 1))
    assert not in_the_air(sharp, camera).any()
    pole = sharp.copy()
    pole[:, 30] = 1.0  # one pixel wide, before the wall
    assert not in_the_air(pole, camera).any()
    holes = np.tile(row, (30, 1))
    holes[:, 19] = np.nan
    assert not in_the_air(holes, camera).any()  # nothing is known beside them


def test_points_without_certainty_are_in_the_air():
    camera = Camera(8, 6, 10.0, 10.0, 3.5, 2.5)
    depth, sigma = np.full((6, 8), 2.0, np.float32), np.full((6, 8), 0.05, np.float32)
    sigma[2, 3] = 0.2
    depth[5, 7] = sigma[5, 7] = np.nan
    assert np.argwhere(in_the_air(depth, camera, sigma)).tolist() == [[2, 3]]
