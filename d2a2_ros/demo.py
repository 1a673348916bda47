"""The demo: player and node as separate processes over DDS, collected as any subscriber would, with pictures and figures.

python -m d2a2_ros.demo [--recording FOLDER] [--out demo_out] [--weights NAME_OR_PATH] [--rate HZ]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from d2a2_core.depth import fill_holes, invalid_to_nan
from d2a2_core.files import check_outputs, has_mark, replacing, write_png
from d2a2_core.geometry import CameraPair, Registration, write_ply
from d2a2_core.pictures import colorize_depth, contact_sheet, enlarge_nearest, error_map
from d2a2_core.pipeline import DepthPipeline
from d2a2_core.recording import Frame, Recording, RecordingError
from d2a2_core.runtime import compiled_cache
from d2a2_core.weights import DEFAULT_WEIGHTS, WeightsError
from d2a2_ros.environment import PROCESS, PROFILE_VARIABLES

OUTPUTS = ("contact_sheet.png", "cloud.ply", "table.txt")  # in the order in which they are written


def share_directory() -> Path:
    """Where config/ and sample_recording/ are: the checkout, or share/d2a2_ros of an installed package."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").exists():
        return checkout
    from ament_index_python import get_package_share_directory

    return Path(get_package_share_directory("d2a2_ros"))


@dataclass
class Collected:
    """What the subscriber saw, by the nanoseconds of the stamp."""

    sent: dict[int, str] = field(default_factory=dict)  # digest of the depth image that the player sent
    depth: dict[int, np.ndarray] = field(default_factory=dict)  # (H, W) float32 metres, NaN invalid
    provenance: dict[int, np.ndarray] = field(default_factory=dict)
    received: dict[int, float] = field(default_factory=dict)  # monotonic seconds when the depth image came
    latency: list[float] = field(default_factory=list)  # seconds from stamp to reception
    cloud: tuple[np.ndarray, np.ndarray] | None = None  # points (H, W, 3), colours (H, W, 3) of the newest cloud
    infos: int = 0
    clouds: int = 0
    counters: dict[str, int] = field(default_factory=dict)  # of the node's newest diagnostics, by Statistics' keys


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit status: 0 if every pair that the node took came out."""
    options = _parse(arguments)
    try:
        check_outputs(
            (options.out / name for name in OUTPUTS), lambda _: has_mark(options.out / OUTPUTS[-1], b"frames played")
        )
        recording = Recording(options.recording)
        first, seconds, scale = _time_one_frame(recording, options.weights)
    except (RecordingError, WeightsError, ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    rate = options.rate or min(recording.rate_hz, 0.7 / seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{recording.folder.name}: {len(recording)} frames; one takes {seconds:.2f} s here, so they are played at {rate:.2f} Hz"
    )
    os.environ.update(demo_environment())  # before rclpy is imported: the middleware reads it once
    node = start_process("node", weights=options.weights, **_extrinsics(recording))
    try:
        timeout = len(recording) / rate + 30 * seconds + 2 * first + 60
        collected = collect(recording.folder, rate, first_pause(first), node, timeout, patience=5 + 4 * seconds)
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        stop(node)
    return report(recording, collected, options.out, seconds, scale, node.returncode)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recording", type=Path, default=share_directory() / "sample_recording", help="folder recording to play"
    )
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="where the results go")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="shipped name or path")
    parser.add_argument("--rate", type=float, default=0.0, help="frames per second; 0: what this machine can follow")
    return parser.parse_args(arguments)


def _time_one_frame(recording: Recording, weights: str) -> tuple[float, float, int]:
    """Seconds for the first frame, seconds for another, and the scale."""
    pipeline = DepthPipeline.from_pretrained(weights)
    frame, views = recording[0], recording.views()
    times = [time.monotonic()]
    for _ in range(4):
        # As in the node, where nobody subscribes to sigma here.
        scale = pipeline.process(CameraPair(frame.color, frame.depth, **views), sigma=False).scale
        times.append(time.monotonic())
    return times[1] - times[0], min(np.diff(times[1:])), scale


def first_pause(seconds: float) -> float:
    """Seconds of pause after the first frame, until the node is as fast as it gets, but not until it misses images.

    Where models are kept, it only has to read what took ``seconds`` here to compile.
    """
    return min(2 * seconds, 8.0 if compiled_cache.folder() is None else 5.0)


def _extrinsics(recording: Recording) -> dict[str, object]:
    """The node's parameter for depth that is not registered: there is no TF in a recording."""
    pose = recording.extrinsics
    if pose is None:
        return {}
    return {"extrinsics": np.column_stack((pose.rotation, pose.translation)).ravel().tolist()}


def demo_environment() -> dict[str, str]:
    """Variables for the demo's processes: room for images in Fast DDS, this machine only, a domain of its own."""
    profile = str(share_directory() / "config" / "fastdds.xml")
    return PROCESS | {
        **dict.fromkeys(PROFILE_VARIABLES, profile),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "ROS_LOG_DIR": os.environ.get("ROS_LOG_DIR", str(Path(tempfile.gettempdir()) / "d2a2_demo_log")),
    }


def start_process(module: str, **parameters: object) -> subprocess.Popen:
    """Starts one of the package's nodes as ``ros2 run`` would."""
    command = [sys.executable, "-m", f"d2a2_ros.{module}", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return subprocess.Popen(command)


def stop(process: subprocess.Popen) -> None:
    """Ends a process as Ctrl-C does, and harder if that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def collect(
    folder: Path, rate: float, pause: float, node: subprocess.Popen, timeout: float, patience: float
) -> Collected:
    """Subscribes to the node's outputs, plays the recording, and waits until nothing has come for ``patience`` seconds.

    The first frame, for which the network may have to be compiled, is followed by a ``pause``.

    Raises:
        RuntimeError: the node or the player ended with an error.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    rclpy.init(args=[])
    collector = rclpy.create_node("demo_collector")
    collected = Collected()
    outputs = _subscribe(collector, collected)
    executor = SingleThreadedExecutor()
    executor.add_node(collector)
    deadline, ended, player = time.monotonic() + timeout, None, None
    try:
        while time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
            if node.poll() is not None:
                raise RuntimeError(f"the node ended with status {node.returncode}; its message is above")
            if player is None:
                # Only once the node and this subscriber know each other: else the first results go to nobody.
                if all(collector.count_publishers(topic) for topic in outputs):
                    player = start_process(
                        "recording_player",
                        recording=folder.resolve(),
                        rate_hz=float(rate),
                        first_pause=float(pause),
                        loop="false",
                        wait_for_subscribers="true",
                    )
                continue
            if player.poll():
                raise RuntimeError(f"the player ended with status {player.returncode}; its message is above")
            if player.poll() == 0:
                ended = ended or time.monotonic()
                newest = max(collected.received.values(), default=0.0)
                if time.monotonic() - max(ended, newest) > patience:
                    break
    finally:
        if player is not None:
            stop(player)
        collector.destroy_node()
        rclpy.try_shutdown()
    return collected


def _subscribe(collector, collected: Collected) -> list[str]:
    """Subscribes to everything; returns the topics of the node's outputs."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile
    from rclpy.time import Time
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from sensor_msgs_py import point_cloud2

    from d2a2_core.messages.encodings import view
    from d2a2_ros.diagnostics import Statistics
    from d2a2_ros.images import depth_array

    def stamp(msg) -> int:
        return Time.from_msg(msg.header.stamp).nanoseconds

    def on_sent(msg: Image) -> None:
        collected.sent[stamp(msg)] = hashlib.sha1(msg.data).hexdigest()

    def on_depth(msg: Image) -> None:
        key = stamp(msg)
        collected.depth[key] = depth_array(msg).copy()
        collected.received[key] = time.monotonic()
        collected.latency.append((collector.get_clock().now().nanoseconds - key) * 1e-9)

    def on_provenance(msg: Image) -> None:
        collected.provenance[stamp(msg)] = view(msg).copy()

    def on_cloud(msg: PointCloud2) -> None:
        collected.clouds += 1
        points = point_cloud2.read_points(msg)
        xyz = np.stack([points[name].reshape(msg.height, msg.width) for name in "xyz"], axis=-1)
        rgb = np.ascontiguousarray(points["rgb"]).view(np.uint32).reshape(msg.height, msg.width)
        collected.cloud = xyz, np.stack([(rgb >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)

    def on_info(_: CameraInfo) -> None:
        collected.infos += 1

    def on_diagnostics(msg: DiagnosticArray) -> None:
        values = {v.key: v.value for v in msg.status[0].values}
        collected.counters = {key: int(values.get(text, 0)) for key, text in Statistics.COUNTERS.items()}

    outputs = {
        "depth_upsampled/image_raw": (Image, on_depth),
        "depth_upsampled/provenance": (Image, on_provenance),
        "depth_upsampled/camera_info": (CameraInfo, on_info),
        "depth_upsampled/points": (PointCloud2, on_cloud),
        "/diagnostics": (DiagnosticArray, on_diagnostics),
    }
    qos = QoSProfile(depth=10)
    collector.create_subscription(Image, "depth/image_raw", on_sent, qos)
    for topic, (kind, callback) in outputs.items():
        collector.create_subscription(kind, topic, callback, qos)
    return list(outputs)


def lr_depth(recording: Recording, frame: Frame, scale: int) -> np.ndarray:
    """(h, w) metres in the colour camera's view, NaN invalid: registered where the recording's depth is not."""
    if recording.registered:
        return frame.depth
    target = recording.camera("color").reduced(scale)
    registration = Registration(recording.camera("depth"), target, recording.extrinsics)
    return registration(torch.from_numpy(frame.depth)[None, None])[0, 0].numpy()


def bicubic_depth(frame: Frame, lr: np.ndarray) -> np.ndarray:
    """(H, W) metres: the plain enlargement to compare with, holes filled as ours are."""
    depth = fill_holes(invalid_to_nan(torch.from_numpy(lr)[None, None]))
    return F.interpolate(depth, size=frame.color.shape[:2], mode="bicubic", align_corners=False)[0, 0].numpy()


def report(recording: Recording, got: Collected, out: Path, seconds: float, scale: int, node_status: int | None) -> int:
    """Writes contact_sheet.png and cloud.ply, prints the table; returns the exit status."""
    digests = {hashlib.sha1(recording[i].depth_mm.tobytes()).hexdigest(): i for i in range(len(recording))}
    frames = {digests[got.sent[key]]: key for key in sorted(got.depth) if got.sent.get(key) in digests}
    if not frames:
        print("demo: no upsampled depth image came out; see the node's messages above", file=sys.stderr)
        return 1
    errors = _errors(recording, got, frames, scale)
    shown = sorted(frames)[:: max(1, (len(frames) - 1) // 2)][:3]
    panels = [panel for i in shown for panel in _panels(recording, recording[i], got.depth[frames[i]], scale)]
    write_png(out / "contact_sheet.png", contact_sheet(panels, columns=len(panels) // len(shown), width=400))
    points = 0
    if got.cloud:
        with replacing(out / "cloud.ply") as partial:
            points = write_ply(partial, *got.cloud)
    times = sorted(got.received.values())[1:]  # a pause followed the first
    counters = got.counters
    rows = [
        ("frames played", str(len(recording))),
        ("pairs into the node", str(counters.get("pairs", "?"))),
        ("pairs out of the node", str(len(got.depth))),
        ("pairs replaced by newer ones", str(counters.get("replaced", "?"))),
        ("pairs not usable", str(counters.get("unusable", "?"))),
        ("output rate [Hz]", f"{(len(times) - 1) / (times[-1] - times[0]):.2f}" if len(times) > 1 else "-"),
        ("latency, stamp to subscriber, median [ms]", f"{1000 * np.median(got.latency):.0f}"),
        ("latency, stamp to subscriber, p95 [ms]", f"{1000 * np.percentile(got.latency, 95):.0f}"),
        (f"one frame computed alone, x{scale} [ms]", f"{1000 * seconds:.0f}"),
        ("camera infos / clouds out", f"{got.infos} / {got.clouds}"),
        ("points in cloud.ply", str(points)),
    ]
    if errors:
        mean = np.mean(errors, axis=0)
        rows += [("RMSE bicubic [mm]", f"{1000 * mean[0]:.1f}"), ("RMSE ours [mm]", f"{1000 * mean[1]:.1f}")]
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:<{width}}  {value:>10}" for name, value in rows)
    with replacing(out / "table.txt") as partial:
        partial.write_text(table + "\n")
    print(f"\n{table}\n\nwritten: {out / 'contact_sheet.png'}, {out / 'cloud.ply'}, {out / 'table.txt'}")
    accounted = len(got.depth) + sum(counters.get(key, 0) for key in ("unwanted", "replaced", "stale", "unusable"))
    if accounted < counters.get("pairs", 0):
        print("demo: some pairs went into the node and did not come out", file=sys.stderr)
        return 1
    if node_status not in (0, None):
        print(f"demo: the node ended with status {node_status}", file=sys.stderr)
        return 1
    return 0


def _errors(recording: Recording, got: Collected, frames: dict[int, int], scale: int) -> list[tuple[float, float]]:
    """RMSE (metres) of bicubic and of ours over the pixels where truth and ours are valid, for each frame with truth."""
    errors = []
    for index, key in frames.items():
        frame, ours = recording[index], got.depth[key]
        if frame.truth is not None:
            valid = np.isfinite(frame.truth) & np.isfinite(ours)
            errors.append(
                tuple(
                    float(np.sqrt(np.mean((image[valid].astype(np.float64) - frame.truth[valid]) ** 2)))
                    for image in (bicubic_depth(frame, lr_depth(recording, frame, scale)), ours)
                )
            )
    return errors


def _panels(recording: Recording, frame: Frame, ours: np.ndarray, scale: int) -> list[tuple[str, np.ndarray]]:
    size = frame.color.shape[:2]
    reference = frame.truth if frame.truth is not None else ours
    lo, hi = (float(np.nanpercentile(reference, p)) for p in (1, 99))
    lr = lr_depth(recording, frame, scale)
    bicubic = bicubic_depth(frame, lr)
    height, width = lr.shape
    panels = [
        (f"frame {frame.name}: colour {size[1]}x{size[0]}", frame.color),
        (f"LR depth {width}x{height} (grey: none)", enlarge_nearest(colorize_depth(lr, lo, hi), size)),
        ("bicubic (holes filled)", colorize_depth(bicubic, lo, hi)),
        ("ours", colorize_depth(ours, lo, hi)),
    ]
    if frame.truth is not None:
        limit = 0.1 * (hi - lo)
        panels += [
            ("truth", colorize_depth(frame.truth, lo, hi)),
            (f"error of bicubic (white: {1000 * limit:.0f} mm)", error_map(bicubic, frame.truth, limit)),
            ("error of ours", error_map(ours, frame.truth, limit)),
        ]
    return panels


if __name__ == "__main__":
    sys.exit(main())
