"""Pictures and the HTML report."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.evaluation.baselines import get_method
from d2a2_core.evaluation.evaluator import evaluate
from d2a2_core.evaluation.report import write_report
from d2a2_core.pictures import INVALID, colorize_depth, contact_sheet, enlarge_nearest, error_map

CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class NamedSamples(list):
    """Samples as a data set: with a name."""

    def __init__(self, name, samples):
        super().__init__(samples)
        self.name = name


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two methods on the same two generated images."""
    y, x = np.indices((48, 64), dtype=np.float32)
    depth = 1 + 0.01 * y + (x > 30)
    guide = np.repeat((200 * (x > 30))[..., None], 3, axis=2).astype(np.uint8)
    samples = NamedSamples("nyuv2", (Sample(name, guide, depth.astype(np.float32)) for name in ("room<1>", "room2")))
    folders = []
    for method in ("bicubic", "jbu"):
        evaluate(samples, get_method(method), 8, run_dir=tmp_path / method)
        folders.append(tmp_path / method)
    return folders


def test_report_is_one_file_without_links(runs, tmp_path):
    page = write_report(runs, tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "http" not in page
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2 * 2 * 6
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert page.count('type="range"') == 4
    assert "room<1>" not in page  # names are escaped
    assert "room&lt;1&gt;" in page
    assert "2.62" in page  # the paper's D2A2 on NYUv2 x8


def test_best_method_is_marked(runs, tmp_path):
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row">(bicubic|jbu)</th><td>2</td>(<td>.*?</td>)', page)
    assert [name for name, cell in rows if "<strong>" in cell] == ["jbu"]


def test_run_without_pictures_still_gives_tables(runs, tmp_path):
    (runs[0] / "summary.json").unlink()
    page = write_report(runs[:1], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<table>" in page
    assert 'type="range"' not in page


def test_bad_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one run folder"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match=r"expected an evaluation run with metrics\.csv"):
        write_report([tmp_path], tmp_path / "report.html")


def test_report_opens_in_chromium_and_its_slider_moves(runs, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("needs chromium on PATH")
    page = write_report(runs, tmp_path / "report.html")
    # What a key press does: the input changes, and the picture's edge has to follow.
    text = page.read_text(encoding="utf-8")
    move = 'const i=document.querySelector("input");i.stepDown(25);i.dispatchEvent(new Event("input"));'
    check = 'document.title=[getComputedStyle(document.querySelector(".after")).clipPath,'
    check += '...[...document.images].map(p=>p.naturalWidth)].join(" ")'
    probe = tmp_path / "probe.html"
    probe.write_text(text.replace("</body>", f"<script>onload=()=>{{{move}{check}}}</script></body>"), encoding="utf-8")
    flags = (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom")
    command = [browser, *flags, probe.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    clip, widths = re.search(r"<title>(inset\(.*?\)) (.*?)</title>", dom).groups()
    assert clip == "inset(0px 0px 0px 25%)"
    assert widths.split() == ["64"] * 24  # every picture was decoded
    assert dom.count("<table>") == 3  # one comparison, two per-image tables
    assert 'class="js"' in dom


def test_depth_colours_go_from_near_to_far_and_grey():
    picture = colorize_depth(np.array([[1.0, 2.0, 3.0, np.nan, 9.0]]), 1, 3)
    near, middle, far, invalid, beyond = picture[0].astype(int).tolist()
    assert near == [0x30, 0x12, 0x3B]
    assert far == beyond == [0x7A, 0x04, 0x03]
    assert middle[1] > 200  # green
    assert tuple(invalid) == INVALID
    assert (colorize_depth(np.full((2, 2), np.nan)) == INVALID[0]).all()


def test_error_map_brightens_with_the_error():
    picture = error_map(np.array([[1.0, 1.5, 2.0, np.nan]]), np.ones((1, 4)), limit=1).astype(int).sum(axis=-1)[0]
    assert picture[0] < 10
    assert picture[0] < picture[1] < picture[2]
    assert picture[3] == sum(INVALID)


def test_contact_sheet_places_panels_in_rows():
    red, blue = (np.full((10, 20, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = contact_sheet([("a", red), ("b", blue), ("c", blue)], columns=2, width=40)
    assert sheet.getpixel((8 + 20, 8 + 26 + 10)) == (255, 0, 0)
    assert sheet.getpixel((8 + 48 + 20, 8 + 26 + 10)) == (0, 0, 255)
    assert sheet.getpixel((8 + 20, 8 + 54 + 26 + 10)) == (0, 0, 255)
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])


def test_enlarged_pixels_stay_pixels():
    picture = np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8)
    assert enlarge_nearest(picture, (2, 4))[..., 0].tolist() == [[0, 0, 9, 9]] * 2
