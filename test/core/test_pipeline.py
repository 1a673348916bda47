"""The pipeline around the network: what it decides, what it rejects, and what it promises of every pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2a2_core.depth.provenance import Provenance
from d2a2_core.front_end import FrontEnd
from d2a2_core.geometry import Camera, CameraPair, Extrinsics
from d2a2_core.geometry.offset_corrector import moved
from d2a2_core.geometry.plan import RegistrationError, plan_registration, rectifying_grid
from d2a2_core.pipeline import DepthPipeline, PipelineSettings, describe
from d2a2_core.recording import Recording
from d2a2_core.upsampler import DepthUpsampler

COLOR = Camera(96, 64, 80.0, 80.0, 47.5, 31.5)
DEPTH = Camera(30, 24, 22.0, 22.0, 14.5, 11.5)
BESIDE = Extrinsics(np.eye(3), np.array([0.03, 0.0, 0.0]))


class Bilinear(nn.Module):
    scales = (4, 8)

    def forward(self, guide, lr):
        return F.interpolate(lr, size=guide.shape[-2:], mode="bilinear", align_corners=False)


def make(model=None, **settings):
    return DepthPipeline(DepthUpsampler.from_module(model or Bilinear(), "cpu"), PipelineSettings(**settings))


def gray(camera=COLOR):
    return np.full((camera.height, camera.width, 3), 128, np.uint8)


def plan(mode="auto", rectify=False, color=COLOR, depth=DEPTH, extrinsics=None, frames=("c", "d"), lr_size=(24, 30)):
    pair = CameraPair(gray(), np.ones(lr_size, np.float32), color, depth, extrinsics, *frames)
    return plan_registration(mode, rectify, pair)


@pytest.mark.parametrize(
    ("changes", "registered", "why"),
    [
        ({"extrinsics": BESIDE}, True, "it is in frame 'd', colour in 'c'"),
        ({"frames": ("c", "c")}, True, "other intrinsics"),
        ({"frames": ("c", "c"), "depth": replace(COLOR, width=30, height=24)}, False, "repeats the colour camera's"),
        ({"frames": ("c", "c"), "depth": COLOR.resized(24, 16), "lr_size": (16, 24)}, False, "registered already"),
        ({"depth": COLOR.resized(24, 16), "lr_size": (16, 24)}, False, "the intrinsics are the colour camera's"),
        ({"depth": COLOR.resized(24, 16), "lr_size": (16, 24), "extrinsics": BESIDE}, True, "in frame 'd'"),
        ({"depth": None, "frames": ("c", "c")}, False, "no usable camera info of the depth camera"),
        ({"color": None, "frames": ("c", "c")}, False, "no usable camera info of the colour camera"),
        ({"mode": "off", "extrinsics": BESIDE}, False, "off by parameter"),
        ({"mode": "on", "frames": ("c", "c")}, True, "on by parameter"),
        ({"frames": ("c", "c"), "extrinsics": BESIDE}, True, "same frame 'c', but extrinsics"),
    ],
)
def test_whether_depth_is_registered(changes, registered, why):
    result = plan(**changes)
    assert (result.route is not None) == registered
    assert why in result.why


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "the transform from 'd' to 'c' is not known"),
        ({"depth": None, "extrinsics": BESIDE}, "camera info of the depth camera"),
        ({"mode": "on", "depth": None, "extrinsics": BESIDE}, "camera info of the depth camera"),
        ({"mode": "on", "color": None, "extrinsics": BESIDE}, "camera info of the colour camera"),
        ({"rectify": True, "color": None}, "needs the colour camera's"),
    ],
)
def test_what_is_missing_is_said(changes, message):
    with pytest.raises(RegistrationError, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    "bad",
    [
        {"registration": "maybe"},
        {"output_geometry": "round"},
        {"depth_range": "x"},
        {"min_depth": 3, "max_depth": 2},
        {"bound_abs": -1.0},
        {"bound_rel": float("nan")},
        {"max_fill_px": -1.0},
        {"color_offset": (1.0,)},
        {"color_offset": (0.0, float("nan"))},
        {"color_offset": (0.0, 101.0)},
        {"correct_offset": True, "watchdog": False},
    ],
)
def test_settings_that_cannot_be(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PipelineSettings(**bad)


def test_another_lens_is_another_view():
    lens, other = (replace(COLOR, model="plumb_bob", distortion=(k, 0.0, 0.0, 0.0, 0.0)) for k in (-0.3, 0.1))
    same = replace(lens, model="rational_polynomial", distortion=(-0.3, *[0.0] * 7))  # the same lens, written otherwise
    result = [plan(color=lens, depth=d.resized(24, 16), lr_size=(16, 24), frames=("c", "c")) for d in (other, same)]
    assert [r.route is not None for r in result] == [True, False]


def sized(color_size, lr_size, *cameras, **settings):
    """Result of a pair of gray and 1.5 m, sizes (H, W)."""
    images = np.full((*color_size, 3), 128, np.uint8), np.full(lr_size, 1.5, np.float32)
    return make(**settings).process(CameraPair(*images, *cameras))


@pytest.mark.parametrize(
    ("color_size", "lr_size", "said"),
    [
        ((96, 64), (24, 32), "turned by 90 degrees: turn it back"),  # portrait over landscape: ratios 2 and 4
        ((64, 96), (24, 16), "turned by 90 degrees: turn it back"),
        ((72, 96), (24, 44), "one of them is cut: cut the other"),
        ((72, 128), (24, 24), "one of them is cut"),
    ],
)
def test_images_of_other_shapes_are_refused(color_size, lr_size, said):
    with pytest.raises(ValueError, match=said) as caught:
        sized(color_size, lr_size)
    assert caught.value.code == "axis_ratio"
    assert 'set registration to "on"' in str(caught.value)


@pytest.mark.parametrize(
    ("color_size", "lr_size", "doubted"),
    [
        ((72, 96), (24, 32), False),
        ((720, 1280), (180, 317), False),  # 1 % is rounding
        ((65, 96), (9, 14), False),  # and so is a row of 9
        ((96, 128), (24, 36), True),  # 4:3 over 3:2
        ((96, 120), (24, 36), True),
    ],
)
def test_images_of_other_shapes_are_doubted(color_size, lr_size, doubted):
    assert ("axis_ratio" in dict(sized(color_size, lr_size, registration="off").doubts)) == doubted


def test_calibrations_account_for_other_shapes_unless_one_is_the_other_resized():
    """Depth of 24 x 24 pixels that are twice as wide as high, over colour of 48 x 96."""
    color = Camera(96, 48, 80.0, 80.0, 47.5, 23.5)
    depth = Camera(24, 24, 20.0, 40.0, 11.52, 11.48)
    assert not sized((48, 96), (24, 24), color, depth).doubts
    with pytest.raises(ValueError, match="ratio of 4 x 2"):
        sized((48, 96), (24, 24), color, color.resized(24, 24))
    with pytest.raises(ValueError, match="ratio of 4 x 2"):
        sized((48, 96), (24, 24))


@pytest.mark.parametrize("registered", [True, False])
def test_depth_larger_than_colour_is_reduced(registered):
    """424x240 over 320x180, as a depth camera of more pixels beside a small colour image; a box before a wall, and a hole."""
    depth = np.full((240, 424), 3.0, np.float32)
    depth[80:160, 150:290] = 1.0
    depth[20:50, 20:60] = np.nan
    pair = CameraPair(np.full((180, 320, 3), 128, np.uint8), depth)
    if not registered:
        cameras = Camera(320, 180, 250.0, 250.0, 159.5, 89.5), Camera(424, 240, 331.3, 333.3, 211.5, 119.5)
        pair = replace(pair, color_camera=cameras[0], depth_camera=cameras[1])
    result = make(max_fill_px=0.0, registration="off" if registered else "on").process(pair)
    assert result.depth.shape == (180, 320)
    assert ("registered here" in result.registration) != registered
    inside, outside, hole = np.s_[66:114, 120:212], np.s_[145:170, 20:300], np.s_[18:34, 18:42]
    np.testing.assert_allclose(result.depth[inside], 1.0, atol=1e-3)
    np.testing.assert_allclose(result.depth[outside], 3.0, atol=1e-3)
    assert np.isnan(result.depth[hole]).all()


LENS = replace(COLOR, model="plumb_bob", distortion=(-0.2, 0.05, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "known",
    [
        {"depth_camera": COLOR, "depth_topic": "/camera/aligned_depth_to_color/image_raw"},
        {"depth_camera": replace(COLOR, fx=70.0, fy=70.0), "depth_topic": "/depth_to_rgb/image_raw"},
        {"depth_camera": COLOR, "extrinsics": Extrinsics(np.eye(3), np.array([0.05, 0.0, 0.0]), stated=False)},
        {"color_camera": LENS, "depth_camera": COLOR, "depth_frame": "c", "extrinsics": None},
    ],
)
@pytest.mark.parametrize("geometry", ["raw", "rectified"])
def test_registered_depth_stays_where_it_is(known, geometry):
    """An edge in depth that a driver registered, with a frame, an info or a distortion of its own: as with registration "off"."""
    depth = np.full((64, 96), 2.0, np.float32)
    depth[:, 40:] = 1.0
    pair = CameraPair(gray(), depth, COLOR, None, Extrinsics(np.eye(3), np.array([0.05, 0.0, 0.0])), "c", "d")
    pair = replace(pair, **known)
    result, off = (make(registration=r, output_geometry=geometry).process(pair) for r in ("auto", "off"))
    np.testing.assert_array_equal(result.depth, off.depth)
    if geometry == "raw":
        assert abs(np.diff(result.depth[32]).argmin() - 39) <= 2
    assert ("registration_evidence" in dict(result.doubts)) == (pair.depth_frame == "d")


def test_calibrations_out_of_all_bounds_are_refused_or_used_but_never_anything_else():
    rng = np.random.default_rng(0)
    odd = [0.0, -1.0, 1e-300, 1e-9, 0.5, 3.04, 1e4, 1e6, 1e9, 1e300, np.nan, np.inf, -np.inf]
    refused = 0
    for _ in range(150):
        numbers = np.array([80.0, 80.0, 47.5, 31.5, 22.0, 22.0, 14.5, 11.5, 0.05, 0.0, 0.0, -0.2, 0.05])
        chosen = rng.choice(len(numbers), rng.integers(1, 3), replace=False)
        numbers[chosen] = (
            rng.choice(odd, len(chosen)) if rng.random() < 0.7 else numbers[chosen] * 10 ** rng.normal(0, 2)
        )
        try:
            color = Camera(96, 64, *numbers[:4], "plumb_bob", tuple(numbers[11:]))
            move = Extrinsics(np.eye(3), numbers[8:11])
            pair = CameraPair(
                gray(), np.ones((24, 30), np.float32), color, Camera(30, 24, *numbers[4:8]), move, "c", "d"
            )
            FrontEnd((4, 8, 16)).prepare(pair, PipelineSettings())
        except ValueError:
            refused += 1
    assert 40 < refused < 145


def test_a_focal_length_that_spreads_a_measurement_over_hundreds_of_pixels_is_refused():
    tiny = Camera(64, 48, 3.04, 3.04, 31.5, 23.5)
    color = Camera(1280, 720, 600.0, 600.0, 640.0, 360.0)
    pair = CameraPair(np.zeros((720, 1280, 3), np.uint8), np.ones((48, 64), np.float32), color, tiny)
    with pytest.raises(ValueError, match="spread over 197 pixels of the colour image") as caught:
        make().process(pair)
    assert caught.value.code == "spread"


def test_with_everything_off_it_is_the_upsampler():
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    depth = rng.uniform(1, 2, (16, 24)).astype(np.float32)
    depth[3:5, 7:12] = np.nan
    bare = make(hygiene=False, consistency=False, depth_range="frame", watchdog=False).process(CameraPair(color, depth))
    expected = DepthUpsampler.from_module(Bilinear(), "cpu").upsample(color, depth)
    np.testing.assert_array_equal(bare.depth, expected.depth)
    np.testing.assert_array_equal(bare.provenance, expected.provenance)


def test_a_wall_seen_by_two_cameras_is_the_wall():
    """Registered: a fronto-parallel wall stays at its depth, and what the depth camera does not see stays empty."""
    right = Extrinsics(np.eye(3), np.array([0.3, 0.0, 0.0]))
    result = make(max_fill_px=0.0).process(
        CameraPair(gray(), np.full((24, 30), 1.5, np.float32), COLOR, DEPTH, right, "c", "d")
    )
    assert result.scale == 4
    assert result.depth.shape == (64, 96)
    assert np.isfinite(result.depth).mean() > 0.8
    np.testing.assert_allclose(result.depth[np.isfinite(result.depth)], 1.5, atol=1e-3)
    seen_from = COLOR.fx * (-15 / DEPTH.fx + 0.3 / 1.5) + COLOR.cx
    assert abs(np.isnan(result.depth).sum(axis=1) - seen_from).max() <= 4  # cells of 4 pixels
    assert "registered here" in result.registration


def test_registered_pixels_are_where_the_colour_camera_sees_them():
    """A near square before a wall, by its true position in both cameras."""
    rays = DEPTH.rays()
    inside = (np.abs(rays * 0.8) < 0.12).all(axis=-1)
    depth = np.where(inside, 0.8, 2.0).astype(np.float32)
    result = make(hygiene=False, max_fill_px=100.0).process(CameraPair(gray(), depth, COLOR, DEPTH, BESIDE, "c", "d"))
    near = result.depth < 1.4
    left, right = np.flatnonzero(near[32])[[0, -1]]
    expected = [COLOR.fx * (x + 0.03) / 0.8 + COLOR.cx for x in (-0.12, 0.12)]
    assert abs((left + right) / 2 - np.mean(expected)) < 1.5
    assert abs((right - left) - (expected[1] - expected[0])) < 8  # depth pixels are 3.6 colour pixels wide


@pytest.mark.parametrize("hygiene", [True, False])
def test_the_network_is_told_what_measurements_are_worth_whether_any_are_rejected_or_not(hygiene):
    class Asking(Bilinear):
        takes_trust = True

        def forward(self, guide, lr, trust):
            self.trust = trust[0, 0].numpy()
            return super().forward(guide, lr)

    model = Asking()
    depth = np.full((16, 24), 1, np.float32)
    depth[:, 12:], depth[:, 12], depth[3:5, 3:5], depth[10, 2] = 2, 1.5, 0, 30
    make(model, hygiene=hygiene).process(CameraPair(gray(), depth))
    expected = np.ones((16, 24), np.float32)
    expected[:, 12], expected[3:5, 3:5], expected[10, 2] = 0.5, 0, 0
    np.testing.assert_array_equal(model.trust, expected)


@pytest.mark.parametrize(("hygiene", "published"), [(True, False), (False, True)])
def test_a_stray_measurement_is_no_reason_to_fill_the_hole_around_it(hygiene, published):
    depth = np.full((16, 24), 1, np.float32)
    depth[:, 4:22], depth[8, 13] = np.nan, 3
    result = make(hygiene=hygiene).process(CameraPair(gray(), depth))
    around = np.s_[24:44, 44:64]
    assert np.isfinite(result.depth[around]).any() == published
    assert (result.provenance[around] == Provenance.MEASURED).any() == published
    assert np.isfinite(result.depth[:, :28]).all()  # 12 px into the hole
    assert result.removed == hygiene


def test_what_is_out_of_range_is_removed_and_said():
    depth = np.full((16, 24), 1.0, np.float32)
    depth[4, 5] = 30.0
    depth[10:, 12:] = 0.01
    result = make(min_depth=0.1, max_depth=10.0, max_fill_px=4.0).process(CameraPair(gray(), depth))
    assert result.removed == 1 + 6 * 12
    assert (result.provenance[16:20, 20:24] == Provenance.REMOVED).all()
    np.testing.assert_allclose(result.depth[16:20, 20:24], 1.0, atol=0.02)  # from around it
    assert (result.provenance[-1, -1], np.isnan(result.depth[-1, -1])) == (Provenance.REMOVED, True)
    assert not (result.provenance == Provenance.NONE).any()


class Wrong(Bilinear):
    """A network that invents a bump of a fifth of the range."""

    def forward(self, guide, lr):
        out = super().forward(guide, lr).clone()
        out[..., 20:40, 30:60] += 0.2
        return out


@pytest.mark.parametrize("consistency", [True, False])
def test_the_result_reproduces_the_measurements(consistency):
    v, u = np.mgrid[:16, :24]
    depth = (1 + 0.02 * u + 0.01 * v).astype(np.float32)
    result = make(Wrong(), consistency=consistency, bound_abs=0.01, bound_rel=0.005).process(CameraPair(gray(), depth))
    reduced = result.depth.reshape(16, 4, 24, 4).mean(axis=(1, 3))
    excess = np.abs(reduced - depth) - np.maximum(0.01, 0.005 * depth)
    assert (excess.max() < 1e-5) == consistency
    np.testing.assert_allclose(result.residual, np.abs(reduced - depth).max(), atol=1e-5)


def test_rectifying_undoes_the_lens():
    """Colour that tells the direction of its ray tells it in the rectified image too."""
    lens = replace(COLOR, model="plumb_bob", distortion=(-0.25, 0.05, 0.001, -0.001, 0.0))
    along = lens.rays()[..., 0]
    color = np.repeat(np.clip(128 + 150 * along, 0, 255)[..., None], 3, axis=2)
    image = torch.from_numpy(color).permute(2, 0, 1)[None].float()
    out = F.grid_sample(image, rectifying_grid(lens), align_corners=False)[0, 0].numpy()
    expected = np.clip(128 + 150 * replace(lens, model="", distortion=()).rays()[..., 0], 0, 255)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.3)


def test_rectified_output_of_registered_depth():
    """Depth that tells the direction of its ray, seen with the distorted colour camera, tells it without distortion."""
    lens = replace(COLOR, model="plumb_bob", distortion=(-0.2, 0.0, 0.0, 0.0, 0.0))
    slope = 2 + 0.5 * lens.resized(24, 16).rays()[..., 0]
    result = make(output_geometry="rectified").process(CameraPair(gray(), slope.astype(np.float32), lens))
    assert not result.camera.distorted
    assert result.camera.fx == lens.fx
    expected = 2 + 0.5 * result.camera.rays()[..., 0]
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(result.depth[inner], expected[inner], atol=0.01)


def test_a_stream_keeps_its_range_and_reset_forgets_it():
    class Spy(Bilinear):
        seen: list

        def forward(self, guide, lr):
            self.seen.append(float(lr.mean()))
            return super().forward(guide, lr)

    model = Spy()
    model.seen = []
    pipeline = make(model, hygiene=False)
    wide = np.tile(np.linspace(1, 3, 24, dtype=np.float32), (16, 1))
    narrow = np.full((16, 24), 2.0, np.float32)
    for depth in (wide, narrow):
        pipeline.process(CameraPair(gray(), depth))
    pipeline.reset()
    pipeline.process(CameraPair(gray(), narrow))
    assert model.seen[1] == pytest.approx(0.5, abs=0.01)  # 2 m in the middle of 1 to 3 m, as in the frame before
    other = Spy()
    other.seen = []
    make(other, hygiene=False).process(CameraPair(gray(), narrow))
    assert model.seen[2] == other.seen[0]


def test_cameras_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="size of its camera"):
        make(registration="on").process(
            CameraPair(gray(), np.ones((10, 10), np.float32), COLOR, DEPTH, BESIDE, "c", "d")
        )


def test_a_colour_camera_of_another_size_is_refused_where_it_matters():
    with pytest.raises(ValueError, match=r"colour camera.*48x32.*96x64"):
        make().process(
            CameraPair(gray(), np.ones((24, 30), np.float32), COLOR.resized(48, 32), DEPTH, BESIDE, "c", "d")
        )


@pytest.mark.parametrize("cameras", [(), (COLOR, DEPTH, BESIDE, "c", "d")])
def test_a_frame_without_measurements_gives_nothing(cameras):
    result = make().process(CameraPair(gray(), np.full((24, 30), np.nan, np.float32), *cameras))
    assert np.isnan(result.depth).all()
    assert (result.provenance == Provenance.NONE).all()
    assert np.isnan(result.residual)


class Broken(Bilinear):
    """A network with numbers that are none, as float16 gives beyond 65504."""

    def forward(self, guide, lr):
        out = super().forward(guide, lr).clone()
        out[..., :8, :8] = torch.nan
        return out


def test_where_the_network_gives_no_number_nothing_is_called_measured():
    result = make(Broken()).process(CameraPair(gray(), np.full((16, 24), 1.5, np.float32)))
    assert np.isnan(result.depth[:8, :8]).all()
    np.testing.assert_array_equal(result.provenance == Provenance.NONE, np.isnan(result.depth))


def test_the_watchdog_sees_both_images_of_the_same_rectangle(monkeypatch):
    """66 rows and 98 columns are 16.5 and 24.5 cells of the LR grid: the last ones reach beyond the image."""
    seen = []
    pipeline = make()
    monkeypatch.setattr(pipeline.watchdog, "update", lambda color, depth: seen.append((color.shape, depth.shape)))
    pipeline.process(CameraPair(np.zeros((66, 98, 3), np.uint8), np.ones((17, 25), np.float32)))
    ((color, lr),) = seen
    assert (color[0] / lr[0], color[1] / lr[1]) == (4, 4)


class Guided(Bilinear):
    """A network whose result tells the guide apart: red is added to depth."""

    def forward(self, guide, lr):
        return super().forward(guide, lr) + guide[:, :1]


@pytest.mark.parametrize("offset", [(3, -2), (-5, 0), (0, 40)])
def test_results_lie_where_colour_lies(offset):
    """Colour and depth of one scene, colour moved: the results are those of the scene, moved likewise."""
    dx, dy = offset
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    depth = rng.uniform(1, 2, (16, 24)).astype(np.float32)
    settings = {"consistency": False, "depth_range": "frame", "hygiene": False}
    expected = make(Guided(), **settings).process(CameraPair(scene, depth))
    v, u = np.mgrid[:64, :96]
    moved = scene[(v - dy).clip(0, 63), (u - dx).clip(0, 95)]
    result = make(Guided(), color_offset=(dx + 0.4, dy - 0.4), **settings).process(CameraPair(moved, depth))
    inside = (v >= dy) & (v < 64 + dy) & (u >= dx) & (u < 96 + dx)
    rows, columns = (v - dy)[inside], (u - dx)[inside]
    # What the moved image has lost beyond its border the network cannot see either; of depth there it knows the edge's colour.
    np.testing.assert_allclose(result.depth[inside], expected.depth[rows, columns], atol=1e-6)
    np.testing.assert_array_equal(result.provenance[inside], expected.provenance[rows, columns])
    assert np.isnan(result.depth[~inside]).all()
    assert (result.provenance[~inside] == Provenance.NONE).all()
    np.testing.assert_array_equal(result.color, moved)
    assert result.offset == offset
    assert describe(result)["corrected offset [px]"] == f"{dx:+d} {dy:+d}"


@pytest.fixture(scope="module")
def recorded(request):
    recording = Recording(request.config.rootpath / "sample_recording")
    return [recording[i] for i in range(0, len(recording), 2)]


def taken_out(pipeline, color):
    settings = pipeline.settings
    return pipeline.offsets.offset(color.shape, settings.color_offset, settings.correct_offset)


def shown(pipeline, frames, dx, dy):
    """What the pipeline would take out after it has seen the frames, colour moved right by dx and down by dy."""
    front_end, settings = FrontEnd((4, 8)), pipeline.settings
    for frame in frames:
        color = np.roll(frame.color, (dy, dx), (0, 1))
        offset, measured = taken_out(pipeline, color), front_end.prepare(CameraPair(color, frame.depth), settings)
        guide = moved(color, (-offset[0], -offset[1]), None)
        pipeline.offsets.watch(guide, measured.lr[0, 0].numpy(), measured.scale, offset, settings.correct_offset)
    return taken_out(pipeline, color)


def test_an_offset_that_edges_show_is_found_and_followed(recorded):
    pipeline = make(registration="off", correct_offset=True)
    assert shown(pipeline, recorded, 0, 0) == (0, 0)
    for expected in ((4, -3), (-2, 2), (0, 0)):
        found = shown(pipeline, recorded, *expected)
        assert np.hypot(found[0] - expected[0], found[1] - expected[1]) <= 1
    pipeline.settings = PipelineSettings(registration="off")
    shown(pipeline, recorded, 4, -3)
    assert shown(pipeline, recorded, 4, -3) == (0, 0)  # reported, not taken out
    assert np.hypot(pipeline.watchdog.estimate().dx - 4, pipeline.watchdog.estimate().dy + 3) < 1


def test_an_offset_given_is_what_is_left_out_of_the_search(recorded):
    pipeline = make(registration="off", correct_offset=True, color_offset=(4.0, -3.0))
    assert shown(pipeline, recorded, 4, -3) == (4, -3)
    assert abs(pipeline.watchdog.estimate().dx) < 1


def test_an_offset_found_is_forgotten_with_the_stream_and_with_the_size(recorded):
    pipeline = make(registration="off", correct_offset=True)
    assert shown(pipeline, recorded, 4, -3) != (0, 0)
    assert taken_out(pipeline, recorded[0].color[:-8]) == (0, 0)
    assert shown(pipeline, recorded, 4, -3) != (0, 0)
    pipeline.reset()
    assert taken_out(pipeline, recorded[0].color) == (0, 0)


def test_sigma_is_computed_on_demand():
    class Head(nn.Module):
        def predict(self, guide, lr, hr):
            return 0.01 * hr

    pipeline = DepthPipeline(DepthUpsampler.from_module(Bilinear(), "cpu"), sigma_head=Head())
    depth = np.ones((16, 24), np.float32)
    assert pipeline.process(CameraPair(gray(), depth), sigma=False).sigma is None
    np.testing.assert_allclose(pipeline.process(CameraPair(gray(), depth)).sigma, 0.01, rtol=1e-3)
