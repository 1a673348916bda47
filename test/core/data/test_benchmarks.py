"""Finding and reading the benchmark sets, and NYUv2 from its official file."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2a2_core.data.sets import nyu
from d2a2_core.data.sets.benchmarks import NYU_VALIDATION_BLOCKS, nyu_split, open_dataset

COLOUR = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
LEVELS = np.arange(48, dtype=np.uint8).reshape(6, 8)
MILLIMETRES = LEVELS.astype(np.uint16) + 1000


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def make_lu(root: Path, numbers=("01", "02")) -> None:
    for number in numbers:
        save(root / f"Lu/RGB/RGBD_{number}_ouput_color.png", COLOUR)
        save(root / f"Lu/Depth/RGBD_{number}_output_depth.png", LEVELS)


@pytest.mark.parametrize("below", ["", "Lu"])
def test_partial_set_is_found_from_either_folder_and_counted(tmp_path, below):
    make_lu(tmp_path)
    dataset = open_dataset("lu", tmp_path / below)
    assert dataset.describe() == f"lu test: 2 of 6 pairs found in {tmp_path / 'Lu'}"
    sample = dataset[1]
    assert sample.name == "RGBD_02_output_depth"
    assert (sample.unit, sample.metric_factor, sample.border) == ("8-bit", 1.0, 0)
    np.testing.assert_array_equal(sample.guide, COLOUR)
    np.testing.assert_array_equal(sample.depth, LEVELS.astype(np.float32))


def test_unpaired_files_are_named(tmp_path):
    make_lu(tmp_path)
    (tmp_path / "Lu/RGB/RGBD_02_ouput_color.png").unlink()
    with pytest.raises(ValueError, match=r"unpaired files .*RGBD_02 \(no RGB\)"):
        open_dataset("lu", tmp_path)


def test_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the data set lu at"):
        open_dataset("lu", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=re.escape("Expected Middlebury/RGB/")):
        open_dataset("middlebury", tmp_path)
    make_lu(tmp_path)
    with pytest.raises(FileNotFoundError, match="found no middlebury"):
        open_dataset("middlebury", tmp_path / "Lu")


def test_unknown_names_list_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of middlebury, lu, nyuv2, rgbdd, rgbdd-real"):
        open_dataset("kitti", tmp_path)
    with pytest.raises(ValueError, match="lu has no split 'train'"):
        open_dataset("lu", tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "file", "depth", "message"),
    [
        ("lu", "Lu/Depth/a_depth.png", MILLIMETRES, "expected an 8-bit depth image, got uint16"),
        ("lu", "Lu/Depth/a_depth.png", COLOUR, "expected grey depth"),
        ("rgbdd", "RGBDD/Depth/a.png", LEVELS, "expected uint16 millimetres, got uint8"),
        ("nyuv2", "NYUv2/Depth/1000.npy", MILLIMETRES, "expected floating-point metres, got uint16"),
        ("nyuv2", "NYUv2/Depth/1000.npy", MILLIMETRES.astype(np.float32), "expected metres, got values up to 1047"),
        ("nyuv2", "NYUv2/Depth/1000.npy", np.ones((6, 8, 1), np.float32), r"expected a depth map \(H, W\)"),
        ("nyuv2", "NYUv2/Depth/1000.npy", np.ones((6, 9), np.float32), r"depth is \(6, 9\), its guide .* \(6, 8\)"),
    ],
)
def test_wrong_type_or_unit_is_refused_on_reading(tmp_path, name, file, depth, message):
    save(tmp_path / file, depth)
    stem = (tmp_path / file).stem.replace("depth", "color")
    save((tmp_path / file).parents[1] / "RGB" / f"{stem}.png", COLOUR)
    dataset = open_dataset(name, tmp_path)
    with pytest.raises(ValueError, match=message):
        dataset[0]


def test_grey_guide_is_refused(tmp_path):
    make_lu(tmp_path, ["01"])
    save(tmp_path / "Lu/RGB/RGBD_01_ouput_color.png", LEVELS)
    with pytest.raises(ValueError, match="expected an 8-bit colour image"):
        open_dataset("lu", tmp_path)[0]


def test_rgbdd_is_metres(tmp_path):
    save(tmp_path / "RGBDD/RGB/2020_RGB.jpg", COLOUR)
    save(tmp_path / "RGBDD/Depth/2020_HR_gt.png", MILLIMETRES)
    sample = open_dataset("rgbdd", tmp_path)[0]
    np.testing.assert_allclose(sample.depth, MILLIMETRES / 1000, rtol=1e-6)
    assert sample.metric_factor == 100
    assert sample.lr is None


@pytest.mark.parametrize(
    "layout",
    [
        ("models/models_{split}/7/7_RGB.jpg", "models/models_{split}/7/7_HR_gt.png",
         "models/models_{split}/7/7_LR_fill_depth.png"),
        ("{split}/RGBDD_RGB/7_RGB.jpg", "{split}/RGBDD_GT/7_HR_gt.png", "{split}/RGBDD_LR/7_LR_fill_depth.png"),
    ],
)  # fmt: skip
def test_real_pairs_keep_their_own_lr_and_split(tmp_path, layout):
    holed = MILLIMETRES.copy()
    holed[0, 0] = 0
    for split in ("train", "test"):
        for file, array in zip(layout, (COLOUR, holed, holed[::2, ::2]), strict=True):
            save(tmp_path / file.format(split=split), array)
    make_lu(tmp_path)  # another set beside it is no part of this one
    for split in ("train", "test"):
        dataset = open_dataset("rgbdd-real", tmp_path, split)
        assert len(dataset) == 1
        assert any(split in part for part in dataset.pairs[0].lr.relative_to(tmp_path).parts)
    sample = dataset[0]
    assert sample.lr.shape == (3, 4)
    assert np.isnan(sample.lr[0, 0])
    assert np.isnan(sample.depth[0, 0])
    np.testing.assert_allclose(sample.lr[1:], MILLIMETRES[2::2, ::2] / 1000, rtol=1e-6)


def test_nyu_splits_are_disjoint_and_of_the_stated_sizes():
    splits = [nyu_split(index) for index in range(1449)]
    assert [splits.count(name) for name in ("train", "val", "test")] == [800, 200, 449]
    assert splits[1000:] == ["test"] * 449
    assert all(splits[20 * block] == splits[20 * block + 19] == "val" for block in NYU_VALIDATION_BLOCKS)


def test_nyu_folder_gives_only_the_split(tmp_path):
    for number in (0, 40, 1001, 1000):  # train, val, test, test
        save(tmp_path / f"NYUv2/RGB/{number}.jpg", COLOUR)
        save(tmp_path / f"NYUv2/Depth/{number}.npy", LEVELS.astype(np.float32) / 10)
    names = {split: [pair.name for pair in open_dataset("nyuv2", tmp_path, split).pairs] for split in ("train", "val")}
    assert names == {"train": ["0"], "val": ["40"]}
    test = open_dataset("nyuv2", tmp_path)
    assert [pair.name for pair in test.pairs] == ["1000", "1001"]
    assert (test[0].border, test[0].metric_factor) == (6, 100)


@pytest.fixture
def mat(tmp_path) -> Path:
    """Three pairs of 10x12 stored with MATLAB's reversed axes: smooth, so that JPEG changes little."""
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    y, x = np.indices((10, 12), dtype=np.float32)
    with h5py.File(tmp_path / nyu.MAT_NAME, "w") as file:
        colours = [np.stack([20 * y, 20 * x, 0 * x + 50 * k], axis=-1).astype(np.uint8) for k in range(3)]
        file["images"] = np.stack([colour.transpose(2, 1, 0) for colour in colours])
        file["depths"] = np.stack([(y + 100 * x + k).T / 1000 for k in range(3)])
    return tmp_path / nyu.MAT_NAME


def test_nyu_mat_is_read_with_its_axes_turned(mat):
    guide, depth = nyu.read_pair(mat, 2)
    assert guide.shape == (10, 12, 3)
    assert guide[3, 5].tolist() == [60, 100, 100]
    assert depth[3, 5] == pytest.approx(0.505)
    dataset = open_dataset("nyuv2", mat.parent, "train")
    assert [pair.name for pair in dataset.pairs] == ["0", "1", "2"]
    np.testing.assert_array_equal(dataset[2].guide, guide)


def test_prepare_nyu_writes_the_authors_layout_and_resumes(mat, tmp_path, capfd):
    assert nyu.prepare_nyu(mat, tmp_path / "out") == 3
    dataset = open_dataset("nyuv2", tmp_path / "out", "train")
    guide, depth = nyu.read_pair(mat, 1)
    np.testing.assert_array_equal(dataset[1].depth, depth)
    assert np.abs(dataset[1].guide.astype(int) - guide).max() <= 6
    # Interrupted before pair 1 was complete: only that one is written again.
    (tmp_path / "out/NYUv2/Depth/1.npy").unlink()
    before = (tmp_path / "out/NYUv2/Depth/0.npy").stat().st_mtime_ns
    assert nyu.prepare_nyu(mat, tmp_path / "out") == 1
    assert (tmp_path / "out/NYUv2/Depth/0.npy").stat().st_mtime_ns == before
    assert not list(tmp_path.rglob("*.part"))
    assert capfd.readouterr().err == ""  # no progress bar outside a terminal


def test_prepare_nyu_leaves_no_half_file_when_writing_fails(mat, tmp_path, monkeypatch):
    def full_disk(stream, array):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        nyu.prepare_nyu(mat, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/NYUv2/Depth").iterdir()] == []


def test_other_files_than_the_labelled_set_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    (tmp_path / "broken.mat").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="no readable HDF5 file"):
        nyu.count_pairs(tmp_path / "broken.mat")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["depths"] = np.zeros((1, 4, 3))
    with pytest.raises(ValueError, match=r"expected 'images' \(N, 3, W, H\)"):
        nyu.count_pairs(tmp_path / "other.mat")


def make_every_set(root: Path) -> None:
    """One pair of each set, as published, one below the other."""
    make_lu(root, ["01"])
    for name, number in (("Middlebury", "a"), ("RGBDD", "2020")):
        save(root / f"{name}/RGB/{number}_RGB.png", COLOUR)
        save(root / f"{name}/Depth/{number}_HR_gt.png", LEVELS if name == "Middlebury" else MILLIMETRES)
    save(root / "NYUv2/RGB/1000.jpg", COLOUR)
    save(root / "NYUv2/Depth/1000.npy", LEVELS.astype(np.float32) / 10)
    for role, array in (("RGB.jpg", COLOUR), ("HR_gt.png", MILLIMETRES), ("LR_fill_depth.png", MILLIMETRES[::2, ::2])):
        save(root / f"models/models_test/7/7_{role}", array)


def link_root(real, seen):
    seen.symlink_to(real, target_is_directory=True)


def link_sets(real, seen):
    seen.mkdir()
    for folder in real.iterdir():
        (seen / folder.name).symlink_to(folder, target_is_directory=True)


def link_inner_folders(real, seen):
    for folder in real.glob("*/*"):
        (seen / folder.parent.name).mkdir(parents=True, exist_ok=True)
        (seen / folder.parent.name / folder.name).symlink_to(folder, target_is_directory=True)


def link_files(real, seen):
    for path in real.rglob("*.*"):
        (seen / path.relative_to(real)).parent.mkdir(parents=True, exist_ok=True)
        (seen / path.relative_to(real)).symlink_to(path)


def link_in_a_circle(real, seen):
    link_sets(real, seen)
    for place in (seen / "again", real / "back", real / "models" / "models_test" / "up"):
        place.symlink_to(seen, target_is_directory=True)


def link_twice(real, seen):
    link_sets(real, seen)
    (seen / "zoo").symlink_to(real / "models", target_is_directory=True)


@pytest.mark.parametrize("name", ["lu", "middlebury", "nyuv2", "rgbdd", "rgbdd-real"])
@pytest.mark.parametrize(
    "link",
    [link_root, link_sets, link_inner_folders, link_files, link_in_a_circle, link_twice],
    ids=lambda f: f.__name__,
)
def test_a_set_made_of_symbolic_links_is_the_set(tmp_path, name, link):
    make_every_set(tmp_path / "real")
    (tmp_path / "root").mkdir()
    link(tmp_path / "real", tmp_path / "root" / "seen")
    expected, linked = open_dataset(name, tmp_path / "real"), open_dataset(name, tmp_path / "root" / "seen")
    assert [pair.name for pair in linked.pairs] == [pair.name for pair in expected.pairs]
    assert len(linked) == 1
    np.testing.assert_array_equal(linked[0].depth, expected[0].depth)


def test_a_link_of_another_name_does_not_make_one_set_another(tmp_path):
    make_every_set(tmp_path / "real")
    (tmp_path / "data").symlink_to(tmp_path / "real" / "Lu", target_is_directory=True)
    assert len(open_dataset("lu", tmp_path / "data")) == 1
    with pytest.raises(FileNotFoundError, match="found no middlebury"):
        open_dataset("middlebury", tmp_path / "data")
    (tmp_path / "Middlebury").symlink_to(tmp_path / "real" / "Lu", target_is_directory=True)  # whoever says so
    assert len(open_dataset("middlebury", tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a .npy file"),
        (b"PK\x03\x04 a broken archive", "cannot be read as a .npy file"),
        (
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (200000, 200000), }  \n",
            "npy file",
        ),
        (b"\x93NUMPY\x01\x00\x06\x00(((((\n", "cannot be read as a .npy file"),
    ],
)
def test_damaged_arrays_are_refused_by_name_without_the_memory_that_they_claim(tmp_path, content, said):
    make_every_set(tmp_path)
    (tmp_path / "NYUv2/Depth/1000.npy").write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        open_dataset("nyuv2", tmp_path)[0]
    assert "1000.npy" in str(error.value)


def test_nyu_pairs_that_are_not_numbered_are_named(tmp_path):
    make_every_set(tmp_path)
    for folder, name in (("RGB", "room.jpg"), ("Depth", "room.npy")):
        (tmp_path / "NYUv2" / folder / name).touch()
    with pytest.raises(ValueError, match=r"named by their number.*\['room'\]"):
        open_dataset("nyuv2", tmp_path)


@pytest.mark.parametrize("wrong", ["group", "integers", "link"])
def test_an_hdf5_file_of_other_contents_is_refused(tmp_path, wrong):
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    with h5py.File(tmp_path / nyu.MAT_NAME, "w") as file:
        if wrong == "group":
            file.create_group("images")
            file.create_group("depths")
        elif wrong == "integers":
            file["images"], file["depths"] = np.zeros((1, 3, 8, 6), np.uint8), np.ones((1, 8, 6), np.int32)
        else:
            file["images"], file["depths"] = h5py.ExternalLink("nowhere.h5", "/x"), h5py.SoftLink("/y")
    with pytest.raises(ValueError, match=r"expected|damaged"):
        nyu.read_pair(tmp_path / nyu.MAT_NAME, 0)


def test_prepare_nyu_keeps_files_that_are_there(mat, tmp_path):
    mine = tmp_path / "out/NYUv2/Depth/1.npy"
    save(mine, np.ones((10, 12), np.float32))
    before = mine.read_bytes()
    assert nyu.prepare_nyu(mat, tmp_path / "out") == 3
    assert mine.read_bytes() == before
