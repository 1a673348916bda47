"""The tree of transforms: known answers, and that nothing on /tf breaks or fills it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d2a2_core.geometry import transform_tree
from d2a2_core.geometry.transform_tree import KEEP_S, MAX_FRAMES, MAX_NAME, TransformTree, plain_frame


def stamped(parent, child, translation=(0, 0, 0), quaternion=(0, 0, 0, 1), ns=0):
    t, q = (
        SimpleNamespace(**dict(zip(names, v, strict=False)))
        for names, v in (("xyz", translation), ("xyzw", quaternion))
    )
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9)),
        child_frame_id=child,
        transform=SimpleNamespace(translation=t, rotation=q),
    )


def test_random_trees_agree_with_matrices_from_the_root():
    rng = np.random.default_rng(0)
    for _ in range(20):
        tree, to_root = TransformTree(), {"0": np.eye(4)}
        for i in range(1, 12):
            parent, step = str(rng.integers(i)), np.eye(4)
            rotation = Rotation.random(random_state=rng)
            step[:3, :3], step[:3, 3] = rotation.as_matrix(), rng.normal(size=3)
            assert tree.add(stamped(parent, str(i), step[:3, 3], rotation.as_quat()))
            to_root[str(i)] = to_root[parent] @ step
        a, b = (str(v) for v in rng.integers(12, size=2))
        expected = np.linalg.inv(to_root[a]) @ to_root[b]
        translation, quaternion = tree.lookup(a, "/" + b)
        np.testing.assert_allclose(translation, expected[:3, 3], atol=1e-9)
        np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), expected[:3, :3], atol=1e-9)


def test_the_latest_transform_counts_and_a_frame_may_move_to_another_parent():
    tree = TransformTree()
    tree.add(stamped("a", "c", (1, 0, 0)))
    tree.add(stamped("/a", "/c", (2, 0, 0)))
    tree.add(stamped("a", "b", (0, 5, 0)))
    np.testing.assert_allclose(tree.lookup("a", "c")[0], [2, 0, 0])
    tree.add(stamped("b", "c", (2, 0, 0)))
    np.testing.assert_allclose(tree.lookup("a", "c")[0], [2, 5, 0])
    assert len(tree) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_rigid_transform_is_left_out(bad):
    tree = TransformTree()
    assert not tree.add(stamped("a", "b", (0, bad, 0)))
    assert not tree.add(stamped("a", "b", (0, 0, 0), (0, 0, bad, 1)))
    assert not tree.add(stamped("a", "b", (0, 0, 0), (0, 0, 0, 0)))
    assert tree.lookup("a", "b") is None


def test_names_that_join_nothing_are_left_out():
    tree = TransformTree()
    for parent, child in (("a", "a"), ("/a", "a"), ("", "a"), ("a", ""), ("a", "x" * (MAX_NAME + 1))):
        assert not tree.add(stamped(parent, child))
    assert len(tree) == 0


def test_transforms_that_join_in_a_circle_end_a_lookup():
    tree = TransformTree()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("x", "y")):
        tree.add(stamped(parent, child, (1, 0, 0)))
    assert tree.lookup("a", "x") is None
    assert np.isfinite(tree.lookup("b", "c")[0]).all()
    assert tree.lookup("x", "y") is not None


def test_more_frames_than_a_robot_has_are_left_out():
    tree = TransformTree()
    for i in range(MAX_FRAMES + 50):
        tree.add(stamped(str(i), str(i + 1), (0.001, 0, 0)))
    assert len(tree) == MAX_FRAMES
    assert tree.add(stamped("5", "6", (7, 0, 0)))
    np.testing.assert_allclose(tree.lookup("0", "6")[0], [7.005, 0, 0])
    assert tree.lookup("0", str(MAX_FRAMES)) is not None
    assert tree.lookup("0", str(MAX_FRAMES + 20)) is None


def test_leading_slashes_are_no_part_of_a_name():
    assert plain_frame("/color") == plain_frame("color") == "color"
    assert plain_frame("") == ""


# -- at a time -------------------------------------------------------------------------------------------------------------


def turned(degrees):
    return Rotation.from_euler("z", degrees, degrees=True).as_quat()


def test_what_moves_is_interpolated_and_what_does_not_counts_always():
    tree, second = TransformTree(), 10**9
    tree.add(stamped("base", "camera", (0, 0, 1)))
    tree.add(stamped("odom", "base", (0, 0, 0), turned(0), 5 * second), moving=True)
    tree.add(stamped("odom", "base", (4, 0, 0), turned(80), 6 * second), moving=True)
    matrix = tree.matrix("odom", "camera", 5 * second + second // 4)
    np.testing.assert_allclose(matrix[:3, 3], [1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3], Rotation.from_euler("z", 20, degrees=True).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(tree.matrix("camera", "odom", 6 * second), np.linalg.inv(tree.matrix("odom", "camera")))
    for at in (5 * second - 1, 6 * second + 1):
        assert tree.matrix("odom", "camera", at) is None
        assert tree.lookup("odom", "camera", at) is None
    np.testing.assert_allclose(tree.matrix("base", "camera", 99 * second)[:3, 3], [0, 0, 1])
    np.testing.assert_allclose(tree.matrix("odom", "camera")[:3, 3], [4, 0, 1])


def test_the_past_ends_and_begins_anew_with_stamps_far_back():
    tree, second = TransformTree(), 10**9
    for i in range(40):
        tree.add(stamped("odom", "base", (i, 0, 0), ns=i * second), moving=True)
    assert tree.matrix("odom", "base", (39 - int(KEEP_S) - 1) * second) is None
    assert tree.matrix("odom", "base", (39 - int(KEEP_S)) * second)[0, 3] == 39 - int(KEEP_S)
    tree.add(stamped("odom", "base", (77, 0, 0), ns=38 * second), moving=True)  # late, or there twice
    assert tree.matrix("odom", "base", 38 * second)[0, 3] == 38
    tree.add(stamped("odom", "base", (5, 0, 0), ns=5 * second), moving=True)  # played again
    assert tree.matrix("odom", "base", 38 * second) is None
    assert tree.matrix("odom", "base", 5 * second)[0, 3] == 5
    tree.add(stamped("map", "base", (6, 0, 0), ns=6 * second), moving=True)
    assert tree.matrix("odom", "base", 5 * second) is None


def test_the_past_of_many_frames_is_bounded(monkeypatch):
    monkeypatch.setattr(transform_tree, "MAX_SAMPLES", 50)
    tree = TransformTree()
    for i in range(40):
        for name in "abcd":
            tree.add(stamped("odom", name, (i, 0, 0), ns=i), moving=True)
    assert sum(len(edge.past) for edge in tree._edges.values()) <= 50 + 4
    assert all(tree.matrix("odom", name, 39)[0, 3] == 39 for name in "abcd")
