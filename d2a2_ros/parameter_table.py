"""The parameters of upsample_node. `python scripts/generate_docs.py` writes them to config/default.yaml and docs/topics.md."""

from __future__ import annotations

from rclpy.parameter import Parameter

from d2a2_core.depth.provenance import POINTS_PROVENANCE
from d2a2_core.depth.units import MAX_DEPTH_UNIT
from d2a2_core.front_end import GEOMETRIES
from d2a2_core.geometry.plan import REGISTRATIONS
from d2a2_core.messages.camera_info import RECTIFIED_INPUTS
from d2a2_core.network import VIEWS
from d2a2_core.pipeline import RANGES
from d2a2_core.runtime import PRECISIONS, RUNTIMES
from d2a2_core.stream import POINTS_EDGE
from d2a2_core.temporal import MODES
from d2a2_core.weights import DEFAULT_WEIGHTS
from d2a2_ros.images import COMPRESSED_INPUTS
from d2a2_ros.parameter_spec import Spec

SPECS = (
    Spec(
        "weights",
        DEFAULT_WEIGHTS,
        "Weights that ship with the package (d2a2-lite-sensor; d2a2-nano-sensor: three fifths of the time, a little "
        "less accurate; d2a2-pico-sensor: for camera rate on a CPU; d2a2-lite: for noise-free depth), auto (on a CPU the "
        "most accurate sensor weights that hold 10 Hz, on a GPU the most accurate ones), or path of a .safetensors or "
        ".onnx file.",
        details="auto measures on the first pair, for a few seconds, and remembers the times in `~/.cache/d2a2` (`$D2A2_CACHE`; "
        "`off`: nowhere), a busy machine's too: remove `weights.json` there to measure anew. "
        "An .onnx file is one that `d2a2 export` wrote for just these image sizes.",
    ),
    Spec("device", "auto", "Where the network runs: auto (the GPU where there is one), cpu, cuda, cuda:1, ..."),
    Spec(
        "precision",
        "auto",
        "Precision of the network: int8, float32, float16, bfloat16 or auto. auto: on a CPU int8 where OpenVINO is "
        "installed, the weights have ranges for it and it is faster; else bfloat16 where the hardware supports "
        "it; else float16 on a GPU, float32 on a CPU.",
        choices=("auto", *PRECISIONS),
        details="int8 is computed by OpenVINO, with weights that have ranges for it beside them: the sensor weights, and "
        "your own after `d2a2 int8 --weights FILE`. Whether it is faster is measured once for each network on each machine, "
        "for some seconds, and remembered in `~/.cache/d2a2`. It takes about half of float32's time with VNNI (Intel since 2019, "
        "AMD since Zen 4), two thirds without, and [costs next to nothing](results.md#int8).",
    ),
    Spec(
        "runtime",
        "auto",
        "What computes the network: torch, openvino or auto (OpenVINO where it is installed, on a CPU in int8 or "
        "float32; else torch).",
        choices=RUNTIMES,
        details="In float32 the result is the same and OpenVINO takes a third to a half less time for each pair. All that "
        "a pair goes through is compiled as one, for each size of images, with sigma and without, and for each `ensemble`: ten "
        "seconds or so. What was compiled is kept in `~/.cache/d2a2` (`$D2A2_CACHE`; `off`: nowhere), so that it takes a second "
        "or two the next time. With auto, torch computes the pairs meanwhile, slower; the log says when OpenVINO takes over. "
        "Where it fails, torch goes on and the log says so.",
    ),
    Spec(
        "scale",
        0,
        "Trained scale to use: 4, 8 or 16; 0 chooses the one nearest to the ratio of the image sizes.",
        choices=(0, 4, 8, 16),
    ),
    Spec(
        "ensemble",
        1,
        "Views of each pair, turned and mirrored, whose results are averaged: 1, 2, 4 or 8. More accurate, and "
        "takes as many times the network's time.",
        choices=tuple(VIEWS),
        live=True,
        details="4 are the quarter turns. For GPUs and for slow cameras; see [results](results.md#self-ensemble).",
    ),
    Spec(
        "max_fill_px",
        16.0,
        "Holes are filled up to this many output pixels away from a measured one.",
        bounds=(0.0, 4096.0),
        live=True,
    ),
    Spec(
        "latency_budget_ms",
        0.0,
        "Latency, from stamp to publication, that 95 % of the outputs keep below: smaller weights are taken, then sigma is "
        "left out and the cloud thinned, at last the colour image is halved; 0: no budget.",
        bounds=(0.0, 60000.0),
        live=True,
        details="See [Latency budget](#latency-budget).",
    ),
    Spec(
        "sync_slop",
        0.015,
        "Largest difference in seconds of the stamps of a pair. Keep it under half a frame period.",
        bounds=(0.0, 10.0),
    ),
    Spec(
        "sync_queue_size",
        10,
        "Messages of each topic that wait for their partner.",
        bounds=(1, 1000),
        details="Where it is too small for a late topic, /diagnostics says what it must be; see [Pairing](#pairing).",
    ),
    Spec(
        "output_encoding",
        "32FC1",
        "Encoding of the upsampled depth: 32FC1 (metres, NaN invalid) or 16UC1 (millimetres, 0 invalid).",
        choices=("32FC1", "16UC1"),
        live=True,
    ),
    Spec(
        "compressed_output",
        False,
        "Whether depth is published as depth_upsampled/image_raw/compressedDepth, too, in the format of image_transport's "
        "compressedDepth (PNG).",
        details="See [Compressed depth](#compressed-depth).",
    ),
    Spec("cloud_stride", 1, "The cloud takes every n-th row and column.", bounds=(1, 64), live=True),
    Spec(
        "stamp_source",
        "color",
        "Whose stamp the outputs carry: color or depth. They are in the colour camera's frame either way.",
        choices=("color", "depth"),
        live=True,
    ),
    Spec(
        "registration",
        "auto",
        "Whether depth is registered to the colour camera here: on, off or auto (decided by the topic's name, intrinsics, "
        "sizes, frame_ids and TF).",
        choices=REGISTRATIONS,
        details="See [Registration](#registration).",
    ),
    Spec(
        "extrinsics",
        (),
        "From the depth to the colour camera: tx ty tz (metres) qx qy qz qw. Not set: from TF (needs tf2_ros or tf2_msgs).",
        type=Parameter.Type.DOUBLE_ARRAY,
        example=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        details="The 12 numbers of the rows of [R t] are taken, too.",
    ),
    Spec("tf_timeout", 2.0, "Seconds to wait for the transform between the cameras, once.", bounds=(0.0, 60.0)),
    Spec(
        "output_geometry",
        "raw",
        "Geometry of the outputs: raw (the colour image's own, with its lens distortion) or rectified (without it).",
        choices=GEOMETRIES,
    ),
    Spec(
        "rectified_input",
        "auto",
        "Images that come without the lens distortion of their camera info: none, color, depth, both or auto (those "
        "of topics with rect or rectified in their name).",
        choices=RECTIFIED_INPUTS,
    ),
    Spec(
        "compressed_input",
        "auto",
        "Images that come as sensor_msgs/CompressedImage: none, color, depth, both or auto (those of topics named "
        ".../compressed or .../compressedDepth).",
        choices=COMPRESSED_INPUTS,
    ),
    Spec(
        "output_frame",
        "",
        "frame_id of the outputs; empty: the colour image's. For drivers whose own is not an optical frame.",
        details="An optical frame has z into the scene and y down. Registration and TF use the images' own.",
    ),
    Spec(
        "depth_unit",
        0.0,
        "Metres per count of the depth image, for drivers that use another unit than their encoding's; 0: by the "
        "encoding, 0.001 for 16-bit images and 1.0 for 32FC1.",
        bounds=(0.0, MAX_DEPTH_UNIT),
        live=True,
        details="Applied to compressed depth, too. When nearly no depth lies within `min_depth` and `max_depth`, log and "
        "`/diagnostics` say so (`depth_limits`), and which unit would do.",
    ),
    Spec("min_depth", 0.05, "Measurements nearer than this are rejected, metres.", bounds=(0.0, 1000.0), live=True),
    Spec("max_depth", 20.0, "Measurements farther than this are rejected, metres.", bounds=(0.0, 1000.0), live=True),
    Spec(
        "hygiene",
        True,
        "Whether flying pixels and stray measurements are rejected.",
        live=True,
        details="Flying pixels lie between foreground and background, stray measurements alone in a hole. Rejected "
        "ones are not called measured, and no hole is filled for them. Where depth needs no registration the "
        "network still sees them, marked as doubtful.",
    ),
    Spec(
        "depth_range",
        "stable",
        "What depth is normalised by for the network: stable (follows the stream slowly, so that static pixels do "
        "not flicker) or frame (each frame's own range).",
        choices=RANGES,
        live=True,
    ),
    Spec(
        "consistency",
        True,
        "Whether the result, reduced to the network's low-resolution grid, must reproduce every measurement within "
        "bound_abs and bound_rel.",
        live=True,
    ),
    Spec("bound_abs", 0.02, "Bound of consistency, metres.", bounds=(0.0, 10.0), live=True),
    Spec(
        "bound_rel",
        0.02,
        "Bound of consistency as a fraction of the depth; the larger of the two counts.",
        bounds=(0.0, 1.0),
        live=True,
    ),
    Spec(
        "points_provenance",
        "all",
        "Which points the cloud holds: measured; refined (measured ones and moved edges); filled (these and filled "
        "holes); remembered (these and holes that keep what was seen there before); all.",
        choices=tuple(POINTS_PROVENANCE),
        live=True,
        details="See [Provenance](#provenance).",
    ),
    Spec(
        "points_edge",
        "keep",
        "Whether the cloud holds points that may lie in the air between two surfaces: keep or drop.",
        choices=POINTS_EDGE,
        live=True,
        details="For navigation and grasping a missing point is better than one in the air. drop leaves out those where depth "
        "rises more steeply than a surface seen at 83 degrees, on both sides, and those whose sigma is above 5 % of their depth, "
        "which costs the time of sigma: [some five of six flying pixels](results.md#points-in-the-air).",
    ),
    Spec(
        "temporal",
        "off",
        "Whether results are fused over time: off; still, for a camera that does not move; moving, for one whose pose is on TF.",
        choices=MODES,
        details="See [Depth over time](#depth-over-time).",
    ),
    Spec(
        "temporal_frame",
        "odom",
        "Fixed frame in which the camera moves, for temporal: moving.",
    ),
    Spec(
        "remember_s",
        0.5,
        "With temporal, holes keep what was seen there for so many seconds.",
        bounds=(0.0, 3600.0),
        live=True,
    ),
    Spec(
        "drift_threshold_px",
        2.0,
        "Offset between depth and colour edges, in pixels of the colour image, above which /diagnostics warns that "
        "the calibration has drifted, if it is also above 0.6 low-resolution cells (2.4 px at x4); 0 does not watch.",
        bounds=(0.0, 100.0),
        live=True,
        details="At x8 0.6 cells are 4.8 px, at x16 9.6 px, where little is left below the 10 px looked for.",
    ),
    Spec(
        "color_offset",
        (),
        "Where colour lies seen from depth, [dx, dy] in pixels of the colour image to the right and down; taken out "
        "of the results.",
        type=Parameter.Type.DOUBLE_ARRAY,
        live=True,
        example=[0.0, 0.0],
        details='Measured as "edge offset" on `/diagnostics`; see [Offset](#offset).',
    ),
    Spec(
        "correct_offset",
        False,
        "Whether an offset of up to 10 pixels that edges show with confidence is taken out, too.",
        live=True,
        details="See [Offset](#offset).",
    ),
    Spec("threads", 0, "CPU threads of the network; 0 leaves it to torch.", bounds=(0, 256)),
)
