"""Sequences: exact depth under exact poses, what moves is marked, folders that other commands read."""

import json

import numpy as np
import pytest
from room_sequences import INTRINSICS, SIZE, plain_room, sequence

pytest.importorskip("embreex", reason="rendering needs the extra 'render' (embreex)")

from d2a2_core.cli import main
from d2a2_core.data.scenes import sequences
from d2a2_core.data.scenes.sequences import SequenceSettings, generate_sequences, motion, read_poses, sequence_folder
from d2a2_core.recording import Recording

SMALL = SequenceSettings("camera", 3, (64, 48), 5, "unused")


@pytest.fixture
def unfurnished(monkeypatch):
    monkeypatch.setattr(sequences, "models_of", lambda folder, licences: [])
    monkeypatch.setattr(sequences, "make_room", lambda models, rng: plain_room(int(rng.integers(1000))))


def points(frame):
    """World points (H, W, 3) of a frame's exact depth."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    rays = np.stack(
        [(u - INTRINSICS[0, 2]) / INTRINSICS[0, 0], (v - INTRINSICS[1, 2]) / INTRINSICS[1, 1], np.ones_like(u)], -1
    )
    return (rays * frame.truth[..., None]) @ frame.pose[:3, :3].T + frame.pose[:3, 3]


@pytest.mark.slow
def test_exact_depth_and_poses_belong_together():
    frames = sequence("camera")
    first, last = frames[0], frames[-1]
    assert 0.08 < np.linalg.norm(last.pose[:3, 3] - first.pose[:3, 3]) < 0.3
    local = (points(last) - first.pose[:3, 3]) @ first.pose[:3, :3]
    u, v = (INTRINSICS[i, i] * local[..., i] / local[..., 2] + INTRINSICS[i, 2] for i in range(2))
    seen = (u > 0) & (v > 0) & (u < SIZE[0] - 1) & (v < SIZE[1] - 1)
    found = first.truth[np.rint(v[seen]).astype(int), np.rint(u[seen]).astype(int)]
    off = np.abs(found - local[..., 2][seen])
    assert seen.mean() > 0.7
    assert np.median(off) < 0.01  # rounding to whole pixels on slanted surfaces
    assert (off > 0.05).mean() < 0.15  # what is hidden in one of them
    static = np.abs(found - last.truth[seen])
    assert np.median(static) > 3 * np.median(off)  # the poses matter


def test_a_turn_is_a_rotation_about_its_axis():
    matrix = motion(np.array([0.1, 0, 0]), np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(matrix[:3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(matrix[:3, 3], [0.1, 0, 0])


def test_only_what_is_marked_moves():
    frames = sequence("object")
    marked = np.any([frame.moving for frame in frames], axis=0)
    assert all(0.005 < frame.moving.mean() < 0.3 for frame in frames)
    assert np.ptp([np.nonzero(frame.moving)[1].mean() for frame in frames]) > 0.3 * SIZE[0]
    for frame in frames:
        np.testing.assert_array_equal(frame.truth[~marked], frames[0].truth[~marked])
        assert (frame.pose == frames[0].pose).all()
    assert (frames[0].truth[frames[0].moving] < frames[-1].truth[frames[0].moving]).mean() > 0.9


def test_noise_is_fresh_in_every_frame_and_truth_is_not():
    frames = sequence("still")
    noise = np.nanstd([frame.depth for frame in frames], axis=0)
    assert 0.001 < np.nanmedian(noise) < 0.04
    assert np.ptp([frame.truth for frame in frames], axis=0).max() == 0
    assert (frames[0].color != frames[1].color).mean() > 0.3
    assert not any(frame.moving.any() for frame in frames)


def test_the_command_writes_recordings_and_goes_on(tmp_path, unfurnished, capsys):
    options = ["generate", "--scenes", "sequences", "--motion", "object", "--frames", "3", "--size", "64x48", "--seed", "5",
               "--out", str(tmp_path)]  # fmt: skip
    assert main([*options, "--count", "1"]) == 0
    assert "1 sequences written" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert main([*options, "--count", "2"]) == 0
    assert "1 sequences written" in capsys.readouterr().out
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*.png")}.items()
    folder = sequence_folder(tmp_path, 1)
    recording = Recording(folder)
    assert len(recording) == 3
    assert recording.registered
    assert recording.rate_hz == 30
    frame = recording[2]
    assert (frame.color.shape, frame.depth.shape, frame.truth.shape) == ((48, 64, 3), (12, 16), (48, 64))
    names, stamps, poses = read_poses(folder)
    assert names == recording.names == ["000", "001", "002"]
    assert np.diff(stamps) == pytest.approx(1e9 / 30, abs=2)
    np.testing.assert_allclose(poses[0][:3, :3] @ poses[0][:3, :3].T, np.eye(3), atol=1e-9)
    assert main([*options, "--count", "2", "--seed", "6"]) == 2
    assert "made with other settings" in capsys.readouterr().err
    assert main([*options, "--count", "2", "--preview"]) == 2


def test_a_sequence_depends_on_its_seed_and_number(tmp_path, unfurnished):
    generate_sequences(SMALL, 1, tmp_path / "a", quiet=True)
    generate_sequences(SMALL, 2, tmp_path / "b", quiet=True)
    first, same, other = (
        [p.read_bytes() for p in sorted(folder.glob("*.png"))]
        for folder in (tmp_path / "a/000000", tmp_path / "b/000000", tmp_path / "b/000001")
    )
    assert first == same
    assert first != other


def test_a_sequence_that_was_cut_off_is_made_again(tmp_path, unfurnished):
    generate_sequences(SMALL, 1, tmp_path, quiet=True)
    folder = sequence_folder(tmp_path, 0)
    whole = (folder / "poses.json").read_bytes()
    (folder / "poses.json").unlink()
    assert generate_sequences(SMALL, 1, tmp_path, quiet=True) == 1
    assert (folder / "poses.json").read_bytes() == whole
    assert generate_sequences(SMALL, 1, tmp_path, quiet=True) == 0
    (tmp_path / "000001").mkdir()
    (tmp_path / "000001" / "calibration.json").write_text("{}")  # somebody's recording
    with pytest.raises(FileExistsError, match="was not written by this command"):
        generate_sequences(SMALL, 2, tmp_path, quiet=True)
    damaged = json.loads(whole)
    damaged["frames"][1]["camera_to_world"].pop()
    (folder / "poses.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=r"not as `d2a2 generate` writes it: entry frames\[1\]\.camera_to_world"):
        read_poses(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion": "both"}, "motion must be one of still, camera, object, got 'both'"),
        ({"frames": 1}, "at least 2 frames, got 1"),
        ({"size": (66, 48)}, "multiples of 4"),
        ({"size": (28, 48)}, "at least 32x32"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        SequenceSettings(**{"motion": "still", "frames": 4, "size": (64, 48), "seed": 0, "furniture": ""} | change)
