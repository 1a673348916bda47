"""An engine that is fast and has a memory, for tests of bags: nearest pixel, plus a count of the frames so far.

Run as a script it converts a bag in processes that end without warning, as by kill -9.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from d2a2_core.pipeline import PipelineResult, PipelineSettings


class StubEngine:
    """As DepthPipeline from the outside. ``kill_at``: frame (from 0) at which the process ends."""

    settings = PipelineSettings(watchdog=False)

    def __init__(self, kill_at=None):
        self.frames, self.kill_at, self.calls = 0, kill_at, []

    def process(self, pair, sigma=True):
        color, depth = pair.color, pair.depth
        if self.frames == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.frames += 1
        self.calls.append((pair.color_camera, pair.depth_camera, pair.extrinsics, pair.color_frame, pair.depth_frame))
        del self.calls[:-1]
        if depth.max() > 60:
            raise ValueError("this depth is unbelievable")
        rows, columns = (np.arange(n) * m // n for n, m in zip(color.shape[:2], depth.shape, strict=True))
        out = depth[rows][:, columns] + np.float32(self.frames)
        return PipelineResult(
            depth=out, provenance=np.full(out.shape, 1, np.uint8), sigma=out * np.float32(0.01), color=color,
            camera=pair.color_camera, scale=4, registration="depth is taken as registered: a stub said so",
            assumed_registered=True, residual=0.0, removed=0,
        )  # fmt: skip

    def state(self):
        return {"frames": self.frames}

    def restore(self, state):
        self.frames = state["frames"]


def convert(source, target, kill_at):
    """Converts a bag and kills its process at frame ``kill_at``, or at "merge" while the new bag is written."""
    from d2a2_core.bag import BagOptions, merge, upsample_bag

    if kill_at == "merge":
        copy = merge.copy_connections

        def until_the_middle(connections, writer):
            write, writer.count = writer.write, 0

            def count_and_write(*message):
                writer.count += 1
                if writer.count == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
                write(*message)

            writer.write = count_and_write
            return copy(connections, writer)

        merge.copy_connections = until_the_middle
    upsample_bag(source, target, StubEngine(int(kill_at) if kill_at.isdigit() else None), BagOptions(cloud=True))


def main(source, target, *events):
    """One process after another for ``events``: a frame or "merge" to be killed at, or "cut": the journal is cut short.

    Forked, as importing torch takes most of the time; prints the signal that ended each.
    """
    import d2a2_core.bag.convert  # noqa: F401 (once for all of them)

    for event in events:
        if event == "cut":
            journal = target.with_name(f"{target.name}.partial") / "pairs.journal"
            os.truncate(journal, journal.stat().st_size - 100)
            continue
        child = os.fork()
        if not child:
            convert(source, target, event)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
