"""The policy for a stream of pairs, with messages that are plain objects: it needs neither ROS nor a bag."""

import json
from array import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from d2a2_core.errors import CodedError
from d2a2_core.geometry import Camera, Extrinsics
from d2a2_core.messages.encodings import FrameError
from d2a2_core.pipeline import PipelineResult, PipelineSettings
from d2a2_core.stream import PairMessages, Stream, StreamOptions, Topics

SIZE, LR_SIZE = (24, 32), (6, 8)


def header(stamp, frame="c"):
    return SimpleNamespace(stamp=SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id=frame)


def info(width, height, frame="c", d=()):
    k = np.array([20.0, 0, width / 2, 0, 21.0, height / 2, 0, 0, 1])
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    return SimpleNamespace(
        header=header(0, frame), width=width, height=height, distortion_model="plumb_bob" if d else "", d=array("d", d), k=k,
        r=np.eye(3).ravel(), p=np.insert(k, [3, 6, 9], 0.0), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def image(stamp, frame, encoding, pixels):
    height, width = pixels.shape[:2]
    return SimpleNamespace(header=header(stamp, frame), encoding=encoding, height=height, width=width, pixels=pixels)


def pair(stamp=1, size=SIZE, lr_size=LR_SIZE, frames=("c", "d"), infos=(None, None)):
    color = image(stamp, frames[0], "rgb8", np.zeros((*size, 3), np.uint8))
    depth = image(stamp + 5, frames[1], "32FC1", np.ones(lr_size, np.float32))
    return PairMessages(color, depth, *infos)


class Engine:
    """Remembers what it was given; its depth is 1.5 m, its camera the colour camera."""

    def __init__(self, **settings):
        self.settings, self.pairs, self.resets = PipelineSettings(**settings), [], 0
        self.changes = {}

    def process(self, pair, sigma=True):
        self.pairs.append(pair)
        size = pair.color.shape[:2]
        depth = np.full(size, 1.5, np.float32)
        result = PipelineResult(
            depth=depth,
            provenance=np.ones(size, np.uint8),
            sigma=0.1 * depth if sigma else None,
            color=pair.color,
            camera=pair.color_camera,
            scale=4,
            registration="as said",
            assumed_registered=True,
            residual=0.0,
            removed=0,
        )
        return replace(result, **self.changes)

    def reset(self):
        self.resets += 1

    def state(self):
        return {"resets": self.resets}

    def restore(self, state):
        self.restored = state


class Host:
    def __init__(self):
        self.reports, self.told, self.asked, self.poses = [], [], [], {}

    def read_color(self, msg):
        if msg.pixels is None:
            raise FrameError("truncated", "image is truncated")
        return msg.pixels

    def read_depth(self, msg, unit):
        return self.read_color(msg)

    def extrinsics(self, color_frame, depth_frame):
        self.asked.append((color_frame, depth_frame))
        return Extrinsics.identity()

    def pose(self, fixed_frame, frame, stamp_ns):
        self.asked.append((fixed_frame, frame, stamp_ns))
        return self.poses.get(stamp_ns)

    def header(self, stamp_ns, frame_id):
        return header(stamp_ns, frame_id)

    def report(self, code, message, detail=""):
        self.reports.append((code, message))

    def inform(self, message):
        self.told.append(message)

    @property
    def codes(self):
        return [code for code, _ in self.reports]


def make(topics=None, **settings):
    engine, host = Engine(**settings), Host()
    return Stream(engine, host, topics or Topics("/color", "/depth", "/color/info")), engine, host


def test_stamps_only_go_forward_until_the_stream_begins_anew():
    stream, engine, _ = make()
    assert stream.process(pair(7), StreamOptions()).stamp_ns == 7
    for stamp in (7, 3):
        with pytest.raises(CodedError) as caught:
            stream.process(pair(stamp), StreamOptions())
        assert caught.value.code == "stale"
    assert len(engine.pairs) == 1
    stream.restart()
    assert engine.resets == 1
    assert stream.process(pair(3), StreamOptions()).stamp_ns == 3


def test_a_pair_that_failed_does_not_hold_up_its_stamp():
    stream, engine, _ = make()
    engine.process, process = None, engine.process
    with pytest.raises(TypeError):
        stream.process(pair(7), StreamOptions())
    engine.process = process
    stream.process(pair(7), StreamOptions())


def test_the_outputs_carry_the_chosen_stamp_and_frame():
    stream, _, _ = make()
    result = stream.process(pair(7), StreamOptions(stamp_source="depth", output_frame="phone"))
    assert (result.stamp_ns, result.header.stamp.nanosec, result.header.frame_id) == (12, 12, "phone")
    assert stream.process(pair(20), StreamOptions()).header.frame_id == "c"


@pytest.mark.parametrize(
    ("which", "said"), [("color", "colour: image is truncated"), ("depth", "depth: image is trunc")]
)
def test_an_unreadable_image_has_a_code_that_names_it(which, said):
    stream, _, _ = make()
    messages = pair()
    getattr(messages, which).pixels = None
    with pytest.raises(FrameError, match=said) as caught:
        stream.process(messages, StreamOptions())
    assert caught.value.code == f"{which}_truncated"


def test_an_info_of_another_size_is_scaled_to_the_image_and_its_camera_goes_to_the_engine():
    stream, engine, host = make()
    result = stream.process(pair(infos=(info(64, 48), info(8, 6, "d"))), StreamOptions())
    assert not host.codes
    assert engine.pairs[0].color_camera == Camera(32, 24, 10.0, 10.5, 15.75, 11.75)
    assert engine.pairs[0].depth_camera == Camera(8, 6, 20.0, 21.0, 4.0, 3.0)
    assert (result.info.width, result.info.k[0], result.info.header) == (32, 10.0, result.header)


@pytest.mark.parametrize(("size", "used"), [((64, 46), True), ((64, 30), False), ((24, 32), False)], ids=str)
def test_an_info_of_another_shape_is_reported_and_one_of_another_image_not_used(size, used):
    stream, engine, host = make()
    result = stream.process(pair(infos=(info(*size), None)), StreamOptions())
    assert "color_info_shape" in host.codes
    assert (engine.pairs[0].color_camera is not None) == (result.info is not None) == used


def test_without_a_colour_info_there_is_neither_info_nor_cloud_and_that_is_reported():
    stream, _, host = make()
    result = stream.process(pair(), StreamOptions())
    assert [name for name, _ in result.outputs(StreamOptions(), lambda name: True)] == [
        "image_raw",
        "provenance",
        "sigma",
    ]
    assert "/color/info" in dict(host.reports)["no_color_info"]


def test_an_uncalibrated_info_is_passed_on_but_is_no_camera():
    stream, engine, host = make()
    blank = info(32, 24)
    blank.k[:] = blank.p[:] = 0
    result = stream.process(pair(infos=(blank, None)), StreamOptions())
    assert engine.pairs[0].color_camera is None
    assert result.info is not None
    assert "color_info" in host.codes
    assert "not calibrated" in engine.pairs[0].color_problem


def test_k_of_the_identity_is_replaced_by_p_in_the_outputs_too():
    stream, engine, host = make()
    blank = info(64, 48)
    blank.k[:] = np.eye(3).ravel()
    result = stream.process(pair(infos=(blank, None)), StreamOptions())
    assert engine.pairs[0].color_camera == Camera(32, 24, 10.0, 10.5, 15.75, 11.75)
    assert result.info.k[0] == 10.0
    assert "P is taken in its place" in dict(host.reports)["color_info_k"]


def test_coefficients_without_a_name_are_said():
    stream, engine, host = make()
    given = info(32, 24, d=(0.1, 0, 0, 0, 0))
    given.distortion_model = ""
    stream.process(pair(infos=(given, None)), StreamOptions())
    assert engine.pairs[0].color_camera.model == "plumb_bob"
    assert "5 distortion coefficients without a model's name" in dict(host.reports)["color_distortion"]


def test_coefficients_beside_a_model_that_says_none_are_said():
    stream, engine, host = make()
    given = info(32, 24, d=(0.1, 0, 0, 0, 0))
    given.distortion_model = "none"
    stream.process(pair(infos=(given, None)), StreamOptions())
    assert not engine.pairs[0].color_camera.distorted
    assert "which are not used: its model is 'none'" in dict(host.reports)["color_distortion"]


def test_the_engine_is_told_of_names_problems_and_rectification():
    lens = info(8, 6, "d", d=(0.1, 0, 0, 0, 0))
    stream, engine, _ = make(Topics("/color", "/depth/image_rect"))
    stream.process(pair(infos=(None, lens)), StreamOptions())
    given = engine.pairs[0]
    assert (given.depth_topic, given.depth_rectified, given.color_problem) == ("/depth/image_rect", True, "none came")
    stream.process(pair(9, infos=(None, info(8, 6, "d"))), StreamOptions())
    assert not engine.pairs[1].depth_rectified  # whether its distortion was taken out, nobody knows


def test_what_comes_from_a_rectifying_node_has_no_distortion():
    stream, engine, _ = make(Topics("/color/image_rect", "/depth"))
    stream.process(pair(infos=(info(32, 24, d=(0.1, 0, 0, 0, 0)), None)), StreamOptions())
    assert not engine.pairs[0].color_camera.distorted
    stream.process(pair(9, infos=(info(32, 24, d=(0.1, 0, 0, 0, 0)), None)), StreamOptions(rectified_input="none"))
    assert engine.pairs[1].color_camera.distorted


def test_a_rectified_result_has_the_info_of_its_camera():
    stream, engine, _ = make()
    pinhole = Camera(32, 24, 15.0, 16.0, 14.0, 12.0)
    engine.changes = {"camera": pinhole}
    given = info(32, 24, d=(0.1, 0, 0, 0, 0))
    out = stream.process(pair(infos=(given, None)), StreamOptions()).info
    assert (list(out.d), out.k[0], out.p[5], out.k[2]) == ([0.0] * 5, 15.0, 16.0, 14.0)
    assert given.d[0] == 0.1


def test_a_rectified_output_of_a_lens_without_distortion_has_a_whole_info_too():
    """Drivers leave P empty; whoever reads the output's info for clouds needs it."""
    stream, _, _ = make(output_geometry="rectified")
    given = info(32, 24)
    given.p = np.zeros(12)
    given.r = np.diag([1.0, -1.0, -1.0]).ravel()
    out = stream.process(pair(infos=(given, None)), StreamOptions()).info
    assert (out.p[0], out.p[5], out.p[2], out.k[0]) == (20.0, 21.0, 16.0, 20.0)
    np.testing.assert_array_equal(out.r, np.eye(3).ravel())


def test_transforms_are_not_asked_for_where_registration_is_off():
    stream, engine, host = make(registration="off")
    stream.process(pair(), StreamOptions())
    assert not host.asked
    assert engine.pairs[0].extrinsics is None
    stream, engine, host = make()
    stream.process(pair(), StreamOptions())
    assert host.asked == [("c", "d")]
    assert engine.pairs[0].extrinsics.is_identity()


def test_changes_are_told_once():
    stream, engine, host = make()
    for stamp in (1, 10):
        stream.process(pair(stamp, frames=("c", "c")), StreamOptions())
    assert host.told == ["as said"]
    engine.changes = {"registration": "otherwise", "offset": (2, -1)}
    stream.process(pair(20, size=(48, 64), frames=("c", "c")), StreamOptions())
    assert host.told == ["as said", "colour lies +2 -1 px beside depth, taken out", "otherwise"]
    assert host.codes.count("sizes") == 1


def test_what_is_doubtful_is_reported():
    stream, engine, host = make()
    engine.changes = {"doubts": (("registration_evidence", "one says so, one says no"), ("axis_ratio", "cut?"))}
    stream.process(pair(), StreamOptions())
    assert host.reports[-2:] == [("registration_evidence", "one says so, one says no"), ("axis_ratio", "cut?")]
    assert stream.doubts == engine.changes["doubts"]
    engine.changes = {}
    stream.process(pair(10), StreamOptions())
    assert stream.doubts == ()


def test_doubts_of_a_pair_that_could_not_be_computed_are_its_own():
    stream, engine, _ = make()
    engine.process = lambda *_: (_ for _ in ()).throw(CodedError("no_depth_camera", "missing"))
    with pytest.raises(CodedError):
        stream.process(pair(infos=(info(24, 32), None)), StreamOptions())
    assert [code for code, _ in stream.doubts] == ["color_info_shape"]
    stream.restart()
    assert stream.doubts == ()


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        # K is that of an image twice as large, of one of another shape, without a centre, by columns, or with both swapped.
        ({"k": [40, 0, 31.5, 0, 42, 23.5, 0, 0, 1]}, "centre", "image of about 64x48"),
        (
            {"k": [40, 0, 63.5, 0, 42, 35.5, 0, 0, 1], "width": 64, "height": 48},
            "centre",
            "of 64x48 pixels: is K that of",
        ),
        ({"k": [20, 0, 0, 0, 21, 0, 0, 0, 1]}, "centre", "is K incomplete"),
        ({"k": [20, 0, 0, 0, 21, 0, 15.5, 11.5, 1]}, "centre", "is K incomplete"),
        ({"k": [20, 0, 11.5, 0, 21, 15.5, 0, 0, 1]}, "centre", "image of about 24x32"),
        ({"k": [20, 4, 15.5, 0, 21, 11.5, 0, 0, 1]}, "skew", "K[1]=4"),
        ({"width": 0, "height": 0}, "size", "taken as for 32x24"),
        ({"k": [20, 0, 17.5, 0, 21, 10, 0, 0, 1]}, "", ""),
        ({"k": [20, 0.1, 15.5, 0, 21, 11.5, 0, 0, 1]}, "", ""),
    ],
)
def test_a_k_that_does_not_fit_its_image_is_doubted(fields, code, said):
    stream, engine, host = make()
    given = info(32, 24)
    for name, value in fields.items():
        setattr(given, name, np.array(value, float) if name == "k" else value)
    stream.process(pair(infos=(given, None)), StreamOptions())
    assert host.codes == ([f"color_info_{code}"] if code else [])
    assert said in "".join(message for _, message in stream.doubts)
    assert engine.pairs[0].color_camera is not None
    assert (given.width, given.height) == (fields.get("width", 32), fields.get("height", 24))


def test_the_centre_of_a_cut_image_may_lie_anywhere():
    stream, engine, host = make()
    given = info(64, 48)
    given.roi.width, given.roi.height = 32, 24
    stream.process(pair(infos=(given, None)), StreamOptions())
    assert engine.pairs[0].color_camera.cx == 32
    assert not host.codes


@pytest.mark.parametrize(
    ("declared", "roi", "binning", "codes"),
    [
        # The region halved by a node that says nothing of it; a region in binned pixels.
        ((128, 96), (64, 48), (0, 0), ["roi"]),
        ((128, 96), (32, 24), (2, 2), ["roi"]),
        # Its size is the region's already, its centre is not.
        ((32, 24), (32, 24), (0, 0), ["centre"]),
        # The whole, whatever region somebody asked for.
        ((32, 24), (16, 12), (0, 0), []),
        ((64, 48), (16, 12), (2, 2), []),
        ((64, 48), (64, 48), (0, 0), []),
        ((64, 48), (64, 48), (2, 2), []),
        # The region.
        ((64, 48), (32, 24), (0, 0), []),
        ((128, 96), (64, 48), (2, 2), []),
    ],
)
def test_an_image_that_is_neither_the_region_nor_the_whole_is_doubted(declared, roi, binning, codes):
    stream, _, host = make()
    given = info(*declared)
    given.roi.width, given.roi.height, given.roi.x_offset, given.roi.y_offset = *roi, 8, 6
    given.binning_x, given.binning_y = binning
    if "centre" in codes:
        given.k[2] += 8
        given.k[5] += 6
    stream.process(pair(infos=(given, None)), StreamOptions())
    assert host.codes == [f"color_info_{code}" for code in codes]


def test_depths_camera_info_is_not_doubted_where_it_is_not_used():
    blank = info(8, 6, "d")
    blank.k[:] = blank.p[:] = 0
    for registration, said in (("auto", ["depth_info"]), ("off", [])):
        stream, _, host = make(registration=registration)
        stream.process(pair(infos=(info(32, 24), blank)), StreamOptions())
        assert host.codes == [code for code, _ in stream.doubts] == said


def test_outputs_are_made_only_where_wanted_and_as_chosen():
    stream, engine, _ = make()
    engine.changes = {
        "depth": np.tile(np.array([np.nan, 0.0004, 1.2344, 65.6], np.float32), (24, 8)),
        "provenance": np.tile(np.array([0, 1, 2, 3], np.uint8), (24, 8)),
    }
    options = StreamOptions(output_encoding="16UC1", cloud_stride=2, points_provenance="measured")
    result = stream.process(pair(infos=(info(32, 24), None)), options, sigma=False)
    outputs = dict(result.outputs(options, lambda name: name != "provenance"))
    assert set(outputs) == {"image_raw", "camera_info", "points"}
    assert outputs["image_raw"].encoding == "16UC1"
    np.testing.assert_array_equal(outputs["image_raw"].array[0, :4], [0, 1, 1234, 65535])
    points = outputs["points"]
    assert points.shape == (12, 16)
    assert np.isnan(points["z"]).all()  # every second column has provenance 0 or 2


def test_points_in_the_air_are_left_out_of_the_cloud_alone():
    stream, _, _ = make()
    options = StreamOptions(points_edge="drop")
    # Nobody asked for sigma, which is a tenth of the depth here: too much.
    result = stream.process(pair(infos=(info(32, 24), None)), options, sigma=False)
    outputs = dict(result.outputs(options, lambda name: name in ("image_raw", "points")))
    assert np.isnan(outputs["points"]["z"]).all()
    assert (outputs["image_raw"].array == 1.5).all()
    kept = dict(result.outputs(StreamOptions(), lambda name: name == "points"))
    assert (kept["points"]["z"] == 1.5).all()


def test_depth_that_is_not_understood_is_told_and_recovers_by_itself():
    stream, engine, host = make()
    for stamp, metres in ((10, 1500.0), (20, 0.0), (30, 1.5)):
        messages = pair(stamp)
        messages.depth.pixels = np.full(LR_SIZE, metres, np.float32)
        stream.process(messages, StreamOptions())
        assert [code for code, _ in stream.doubts] == {1500: ["depth_limits"], 0: ["no_depth_values"], 1.5: []}[metres]
    assert len(engine.pairs) == 3  # published all the same: nothing may be in view
    said = [report for report in host.reports if report[0] in ("depth_limits", "no_depth_values")]
    assert said == [
        (
            "depth_limits",
            "the median of the depth is 1,500 m, above max_depth 20 m: is it in millimetres? Set depth_unit to 0.001; if it "
            "is right, change max_depth",
        ),
        ("no_depth_values", "depth has no valid pixel: all are 0, NaN or infinite"),
    ]


def test_the_unit_goes_to_whoever_reads_depth():
    stream, _, host = make()
    units = []
    host.read_depth = lambda msg, unit: units.append(unit) or msg.pixels
    for stamp, unit in ((10, 0.0), (20, 0.0001)):
        stream.process(pair(stamp), StreamOptions(depth_unit=unit))
    assert units == [0.0, 0.0001]


def test_the_state_holds_the_range_of_a_16_bit_guide_and_the_engines():
    def infrared(stamp, counts):
        messages = pair(stamp)
        messages.color.pixels = np.linspace(0, counts, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
        return messages

    whole, whole_engine, _ = make()
    before, _, _ = make()
    after, engine, _ = make()
    for stream in (whole, before):
        stream.process(infrared(10, 4000), StreamOptions())
    after.restore(json.loads(json.dumps(before.state())))
    assert engine.restored == {"resets": 0}
    for stream in (whole, after):
        stream.process(infrared(20, 1000), StreamOptions())
    np.testing.assert_array_equal(engine.pairs[0].color, whole_engine.pairs[1].color)
    assert engine.pairs[0].color.max() < 80
    after.restart()
    after.process(infrared(20, 1000), StreamOptions())
    assert engine.pairs[1].color.max() > 240


@pytest.mark.parametrize(
    "bad",
    [
        {"stamp_source": "x"},
        {"output_encoding": "8UC1"},
        {"rectified_input": "x"},
        {"cloud_stride": 0},
        {"depth_unit": -0.001},
        {"depth_unit": float("nan")},
        {"depth_unit": 1e9},
        {"points_provenance": "x"},
        {"points_edge": "x"},
    ],
)
def test_options_that_cannot_be(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        StreamOptions(**bad)


# -- over time -------------------------------------------------------------------------------------------------------------

FRAME_NS = 33_000_000


def over_time(count=6, poses=False, **options):
    """A stream, its host, and the results of pairs whose depth is 1.5 m and 1 cm more in turns; sigma is 0.1 of the depth."""
    stream, engine, host = make()
    infos = info(*SIZE[::-1]), info(*LR_SIZE[::-1])
    host.poses = {(1 + i) * FRAME_NS: np.eye(4) for i in range(count)} if poses else {}
    results = []
    for i in range(count):
        engine.changes = {"depth": np.full(SIZE, 1.5 + 0.01 * (i % 2), np.float32)}
        results.append(stream.process(pair((1 + i) * FRAME_NS, infos=infos), StreamOptions(**options), sigma=False))
    return stream, engine, host, results


def test_without_time_results_are_as_computed():
    stream, _, host, results = over_time()
    assert [float(r.result.depth[0, 0]) for r in results[:2]] == [1.5, np.float32(1.51)]
    assert {r.temporal for r in results} == {""}
    assert all(r.result.sigma is None for r in results)
    assert json.loads(json.dumps(stream.state())) == stream.state()
    assert not any(len(asked) == 3 for asked in host.asked)


@pytest.mark.parametrize("temporal", ["still", "moving"])
def test_results_are_fused_and_sigma_falls(temporal):
    _, _, host, results = over_time(temporal=temporal, poses=True, temporal_frame="/map")
    depth = np.array([r.result.depth[12, 16] for r in results])
    np.testing.assert_allclose(depth[1:4], [1.505, 1.50333, 1.505], atol=5e-4)  # means
    sigma = [float(r.result.sigma[12, 16]) for r in results]
    assert sigma == sorted(sigma, reverse=True)
    assert results[0].temporal == "started anew (first)"
    assert "agree with before" in results[1].temporal
    assert not host.codes
    if temporal == "moving":
        assert ("map", "c", 2 * FRAME_NS) in host.asked


def test_moving_without_a_pose_says_so_and_fuses_nothing():
    _, _, host, results = over_time(temporal="moving")
    assert "no_pose" in host.codes
    assert "set temporal_frame" in dict(host.reports)["no_pose"]
    assert float(results[1].result.depth[0, 0]) == np.float32(1.51)
    assert results[1].temporal == "started anew (no_pose)"


def test_a_restart_forgets_and_a_memory_brings_it_back():
    stream, engine, _, _ = over_time(temporal="still")
    state, memory = stream.state(), stream.memory()
    following = pair(7 * FRAME_NS, infos=(info(*SIZE[::-1]), info(*LR_SIZE[::-1])))
    engine.changes = {"depth": np.full(SIZE, 1.52, np.float32)}
    options = StreamOptions(temporal="still")
    expected = stream.process(following, options)
    other, other_engine, _ = make()
    other_engine.changes = engine.changes
    other.restore(state)
    other.restore_memory(memory)
    np.testing.assert_array_equal(other.process(following, options).result.depth, expected.result.depth)
    assert float(expected.result.depth[0, 0]) < 1.515
    stream.restart()
    assert float(stream.process(following, options).result.depth[0, 0]) == np.float32(1.52)
    with pytest.raises(ValueError, match="damaged"):
        other.restore_memory(b"no memory")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temporal": "fast"}, "temporal must be one of"),
        ({"temporal": "moving", "temporal_frame": "/"}, "needs temporal_frame"),
        ({"remember_s": -1.0}, "remember_s"),
        ({"remember_s": float("nan")}, "remember_s"),
    ],
)
def test_options_over_time_that_cannot_be(options, named):
    with pytest.raises(ValueError, match=named):
        StreamOptions(**options)
