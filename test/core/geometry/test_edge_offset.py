"""The calibration watchdog: known shifts, generated scenes, recordings, and what it must not say."""

import numpy as np
import pytest

from d2a2_core.data.reduction import resize
from d2a2_core.data.scenes.shapes import sample_scene
from d2a2_core.data.sensors.tof import simulate_tof
from d2a2_core.geometry.edge_offset import EdgeOffset, depth_edges
from d2a2_core.recording import Recording

SHIFTS = [(3, 0), (-3, 0), (0, 3), (2, -2), (5, 1)]


def shifted(color: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The image with its content moved right by dx and down by dy pixels."""
    height, width = color.shape[:2]
    padded = np.pad(color, ((8, 8), (8, 8), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded[8 - dy :, 8 - dx :][:height, :width])


def nearest(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(int)
    return depth[np.ix_(rows, columns)]


def boxes(seed: int, size: tuple[int, int], lr: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes before a wall, all of noisy texture, and their depth averaged in each cell: exact alignment at any ratio."""
    rng = np.random.default_rng(seed)
    depth = np.full(size, 4.0, np.float32)
    color = rng.integers(60, 120, (*size, 3)).astype(np.uint8)
    for level in np.linspace(3, 1, 24):
        y, x, h, w = rng.integers(0, (size[0], size[1], size[0] // 4, size[1] // 4))
        window = np.s_[y : y + h + 20, x : x + w + 20]
        depth[window] = level
        color[window] = rng.integers(0, 200, 3) + rng.integers(0, 50, color[window].shape)
    return color, resize(depth, lr, "area")


@pytest.fixture(scope="module")
def sample(request):
    recording = Recording(request.config.rootpath / "sample_recording")
    return [(frame.color, frame.depth) for frame in (recording[i] for i in range(len(recording)))]


@pytest.fixture(scope="module")
def scenes():
    """Eight generated scenes seen by simulated time-of-flight cameras."""
    out = []
    for index in range(8):
        rng = np.random.default_rng([77, index])
        scene = sample_scene(400, rng)
        settings = {
            "flying_pixels": rng.uniform(0, 0.8),
            "edge_holes": rng.uniform(0, 0.7),
            "blob_holes": rng.uniform(0, 6),
        }
        out.append((scene.color, simulate_tof(scene.depth, (100, 100), rng, rgb=scene.color, **settings)))
    return out


def test_edge_between_two_cells_is_on_their_boundary():
    depth = np.full((3, 12), 2.0, np.float32)
    depth[:, :5] = 1.0
    x, y = depth_edges(depth)
    assert x.tolist() == [4.5] * 3
    assert sorted(y) == [0, 1, 2]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_mixed_pixel_tells_where_in_its_cell_the_edge_is(share):
    """A cell that foreground covers to ``share`` holds that mean; cell 5 reaches from 4.5 to 5.5."""
    depth = np.full((1, 12), 2.0, np.float32)
    depth[:, :5] = 1.0
    depth[:, 5] = 2.0 - share
    assert depth_edges(depth)[0] == pytest.approx([4.5 + share], abs=1e-6)


def test_edge_in_a_wide_hole_is_at_the_foreground():
    depth = np.full((1, 16), 2.0, np.float32)
    depth[:, :5], depth[:, 5:9] = 1.0, np.nan
    (left,) = depth_edges(depth)[0]
    (right,) = depth_edges(depth[:, ::-1])[0]
    assert 4.5 <= left <= 6.5  # at most two eroded pixels from the last foreground pixel, in a hole from 4.5 to 8.5
    assert left == 15 - right


def test_slopes_noise_and_borders_of_holes_are_no_edges():
    x = np.arange(40, dtype=np.float32)
    depth = np.tile(1 + 0.08 * x, (20, 1))  # 3 to 8 % from pixel to pixel
    depth[5:9, 10:13] = depth[12:18, 20:30] = np.nan
    depth[:, 35:] = np.nan
    assert len(depth_edges(depth)[0]) == 0
    flat = 2 + np.random.default_rng(0).normal(0, 0.01, (60, 80)).astype(np.float32)
    assert len(depth_edges(flat)[0]) == 0


@pytest.mark.parametrize("lr", [(90, 120), (60, 160), (100, 130), (48, 64)])
def test_any_ratio(lr):
    """Whole, different along the axes, and fractional: no bias from the grids."""
    watchdog = EdgeOffset()
    for seed in range(6):
        color, depth = boxes(seed, (360, 480), lr)
        watchdog.update(shifted(color, 4, -1), depth)
    offset = watchdog.estimate()
    assert offset.frames == 6
    assert (offset.dx, offset.dy) == pytest.approx((4, -1), abs=0.7)
    assert offset.confidence == 1


@pytest.mark.parametrize("shift", SHIFTS)
def test_shift_of_the_sample_is_reported_within_30_frames(sample, shift):
    watchdog = EdgeOffset()
    for color, depth in sample[:10]:
        watchdog.update(shifted(color, *shift), depth)
    offset = watchdog.estimate()
    assert (offset.dx, offset.dy) == pytest.approx(shift, abs=0.5)
    assert watchdog.drifted()


def test_aligned_sample_raises_no_alarm(sample):
    watchdog = EdgeOffset()
    for color, depth in sample:
        watchdog.update(color, depth)
        assert not watchdog.drifted()
    assert watchdog.estimate().magnitude < 0.5
    assert watchdog.estimate().confidence > 0.9


def test_drift_while_running_is_reported_within_30_frames(sample):
    """Old frames must be forgotten, or their peak would hide the new one."""
    watchdog = EdgeOffset()
    for color, depth in sample:
        watchdog.update(color, depth)
    assert not watchdog.drifted()
    for color, depth in sample:
        watchdog.update(shifted(color, 3, 0), depth)
    assert watchdog.drifted()


def test_generated_scenes(scenes):
    for shift in [(0, 0), *SHIFTS]:
        watchdog = EdgeOffset()
        for color, depth in scenes:
            watchdog.update(shifted(color, *shift), depth)
        offset = watchdog.estimate()
        assert (offset.dx, offset.dy) == pytest.approx(shift, abs=1.0)
        assert watchdog.drifted() == (shift != (0, 0))


def test_a_still_scene_raises_no_alarm(scenes):
    """The same coincidences of texture in every frame: more frames make them no more credible."""
    for color, depth in scenes:
        watchdog = EdgeOffset()
        for _ in range(6):
            watchdog.update(color, depth)
        assert not watchdog.drifted()


def test_says_nothing_without_structure(sample):
    color, depth = sample[0]
    for image, measured in (
        (color, np.full_like(depth, 2.0)),
        (color, np.full_like(depth, np.nan)),
        (np.full_like(color, 128), depth),
    ):
        watchdog = EdgeOffset()
        for _ in range(30):
            watchdog.update(image, measured)
        assert not watchdog.drifted()
        assert watchdog.estimate() is None or watchdog.estimate().confidence < 0.5


def test_says_nothing_of_unrelated_images(sample):
    for foreign in (lambda c: c[:, ::-1], lambda c: c[::-1], lambda c: np.roll(c, 90, 0)):
        watchdog = EdgeOffset()
        for color, depth in sample:
            watchdog.update(np.ascontiguousarray(foreign(color)), depth)
            assert not watchdog.drifted()


def test_few_frames_are_not_enough_and_a_new_size_starts_afresh(sample):
    watchdog = EdgeOffset(min_frames=5)
    for color, depth in sample[:4]:
        watchdog.update(color, depth)
        assert watchdog.estimate() is None
    watchdog.update(*sample[4])
    assert watchdog.estimate().frames == 5
    watchdog.update(sample[0][0][:240], sample[0][1][:60])
    assert watchdog.estimate() is None


def test_same_frames_same_estimate(sample):
    results = []
    for _ in range(2):
        watchdog = EdgeOffset()
        for color, depth in sample[:6]:
            watchdog.update(color, depth)
        results.append(watchdog.estimate())
    assert results[0] == results[1]


def test_smaller_offsets_than_the_threshold_are_no_drift(sample):
    watchdog = EdgeOffset()
    for color, depth in sample[:10]:
        watchdog.update(shifted(color, 3, 0), depth)
    assert watchdog.drifted(threshold_px=2.0)
    assert not watchdog.drifted(threshold_px=4.0)
    assert not watchdog.drifted(threshold_cells=1.0)  # a depth pixel is four colour pixels here


def test_wrong_images_are_refused():
    watchdog = EdgeOffset()
    color, depth = np.zeros((48, 64, 3), np.uint8), np.ones((12, 16), np.float32)
    with pytest.raises(ValueError, match="uint8 RGB"):
        watchdog.update(color.astype(np.float32), depth)
    with pytest.raises(ValueError, match="at most as large as colour"):
        watchdog.update(color[:10], depth)
    with pytest.raises(ValueError, match="window >= 1"):
        EdgeOffset(window=0)


def test_azure_kinect_recording_raises_no_alarm(shared):
    """Moving camera, motion blur, 40 to 80 % invalid, edges hidden in wide holes."""
    recording = Recording(shared / "data" / "azure_kinect_lab")
    watchdog = EdgeOffset()
    for index in range(0, len(recording), 3):
        frame = recording[index]
        watchdog.update(frame.color, nearest(frame.depth, 360, 640))
        assert not watchdog.drifted()


def test_iphone_pair(shared):
    """Its edges really are off by 0.4 to 0.5 depth pixels: an estimate, but no alarm; a shift adds to it."""
    frame = Recording(shared / "data" / "iphone_lidar")[0]
    found = []
    for shift in ((0, 0), (-3, 0), (3, 0)):
        watchdog = EdgeOffset()
        for _ in range(8):
            watchdog.update(shifted(frame.color, *shift), frame.depth)
        found.append(watchdog.estimate())
        assert watchdog.drifted() == (shift == (-3, 0))
    assert found[1].dx - found[0].dx == pytest.approx(-3, abs=0.5)
    assert found[2].dx - found[0].dx == pytest.approx(3, abs=0.5)
