"""`d2a2 bag --temporal`: the live node's results, over interruptions too, with poses from the bag's transforms."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

from bag_files import FRAME, START, STORE, T, contents, frames, outputs, write_bag
from bag_stub import StubEngine

from d2a2_core.bag import BagError, BagOptions, upsample_bag
from d2a2_core.bag import messages as msgs
from d2a2_core.messages.encodings import view

TF = "tf2_msgs/msg/TFMessage"


class Steady(StubEngine):
    """Its depth is 2 m, and 1 cm more in every second frame."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at = stop_at

    def process(self, pair, sigma=True):
        if self.frames == self.stop_at:
            raise KeyboardInterrupt
        result = super().process(pair, sigma)
        depth = np.full(result.depth.shape, 2 + 0.01 * (self.frames % 2), np.float32)
        return replace(result, depth=depth, sigma=0.05 * depth)


def moving(parent, child, x, ns):
    transform = T["geometry_msgs/msg/Transform"](
        T["geometry_msgs/msg/Vector3"](x, 0.0, 0.0), T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    )
    stamped = T["geometry_msgs/msg/TransformStamped"](msgs.header(ns, parent), child, transform)
    return "/tf", TF, ns + 2_000_000, STORE.serialize_cdr(T[TF]([stamped]), TF)


def bag_in_motion(folder, count, still=()):
    """A camera on "link", of which /tf says every 40 ms where it is in "odom": not at the images' stamps."""
    end = START + count * FRAME + 10**9
    rows = [
        moving("odom", "link", 1e-6 * i, START - 10**8 + i * 40_000_000) for i in range((end - START) // 40_000_000)
    ]
    rows = sorted([*frames(count), *rows], key=lambda m: m[2])
    return write_bag(folder, "mcap", [r for r in rows if r[0] not in still])


@pytest.mark.parametrize("temporal", ["still", "moving"])
def test_results_are_fused(tmp_path, temporal):
    source = bag_in_motion(tmp_path / "in", 6)
    summary = upsample_bag(source, tmp_path / "out", Steady(), BagOptions(temporal=temporal))
    assert not [note for note in summary.notes if "temporal" in note]
    depth = [float(view(msg)[12, 16]) for _, msg in outputs(tmp_path / "out", "image_raw")]
    np.testing.assert_allclose(depth[:3], [2.01, 2.005, 2.00667], atol=1e-3)
    assert np.ptp(depth[3:]) < 0.005


def test_without_transforms_the_summary_says_so(tmp_path):
    source = bag_in_motion(tmp_path / "in", 3, still=("/tf",))
    summary = upsample_bag(source, tmp_path / "out", Steady(), BagOptions(temporal="moving", temporal_frame="map"))
    assert any("where 'color_optical' is in 'map'" in note for note in summary.notes)
    depth = [float(view(msg)[12, 16]) for _, msg in outputs(tmp_path / "out", "image_raw")]
    np.testing.assert_allclose(depth, [2.01, 2.0, 2.01], atol=1e-6)


@pytest.mark.parametrize("temporal", ["still", "moving"])
def test_an_interrupted_run_goes_on_with_what_it_knew(tmp_path, temporal):
    source, options = bag_in_motion(tmp_path / "in", 7), BagOptions(temporal=temporal)
    upsample_bag(source, tmp_path / "whole", Steady(), options)
    for stop in (1, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            upsample_bag(source, tmp_path / "out", Steady(stop), options)
    # Killed after the memory of a pair was written, and before the journal had the pair.
    partial = tmp_path / "out.partial"
    journal = (partial / "pairs.journal").read_bytes()
    (partial / "pairs.journal").write_bytes(journal[:-50])
    summary = upsample_bag(source, tmp_path / "out", Steady(), options)
    assert summary.resumed == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["missing", "cut", "of another pair"])
def test_a_memory_that_does_not_fit_is_not_used(tmp_path, damage):
    source, options = bag_in_motion(tmp_path / "in", 6), BagOptions(temporal="still")
    with pytest.raises(KeyboardInterrupt):
        upsample_bag(source, tmp_path / "out", Steady(4), options)
    partial = tmp_path / "out.partial"
    memory, other = partial / "memory.0", partial / "memory.1"
    if damage == "missing":
        memory.unlink()
    else:
        memory.write_bytes(memory.read_bytes()[:-1] if damage == "cut" else other.read_bytes())
    with pytest.raises(BagError, match=r"after 4 pairs; remove .*out\.partial and start again"):
        upsample_bag(source, tmp_path / "out", Steady(), options)
