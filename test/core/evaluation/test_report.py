"""Pictures and the HTML report."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from d2a2_core.data.sets.benchmarks import Sample
from d2a2_core.evaluation.baselines import get_method
from d2a2_core.evaluation.evaluator import evaluate, read_csv, write_csv
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


class Elements(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and the text of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "</title></style></script><script>alert(1)</script>",
    "{{ 7 * 7 }}{% include 'report.js' %}",
    "&lt;script&gt;",
    "javascript:alert(1)",
    "<!-- ",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_a_run_becomes_part_of_the_page(runs, tmp_path, hostile):
    plain = Elements(write_report(runs, tmp_path / "plain.html").read_text(encoding="utf-8"))
    for folder in runs:
        rows = read_csv(folder / "metrics.csv")
        for row in rows:
            row.update({key: hostile for key in ("dataset", "image", "range")}, method=f"{folder.name}{hostile}")
        write_csv(rows, folder / "metrics.csv")
        name = hostile.replace("/", "∕")  # a file's name
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for shot in summary["pictures"]:
            place = folder / "pictures" / (f"{shot['image'][-2:]}{name}")
            (folder / "pictures" / shot["image"]).rename(place)
            shot["image"] = place.name
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    page = write_report(runs, tmp_path / "report.html", title=hostile).read_text(encoding="utf-8")
    found = Elements(page)
    assert found.scripts == plain.scripts
    assert len(found.scripts) == 1
    assert {tag for tag, _ in found.found} <= {tag for tag, _ in plain.found}
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    # Fewer, since no row of the paper is for such a set.
    assert {name for _, a in found.found for name in a} <= {name for _, a in plain.found for name in a}
    sources = [attributes["src"] for tag, attributes in found.found if tag == "img"]
    assert len(sources) == 24
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert str(escape(hostile)) in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rmse": "<script>alert(1)</script>"}, "rmse"),
        ({"rmse": "0.5"}, "rmse"),
        ({"lo": True}, "lo"),
        ({"hi": 1e300}, "hi"),
        ({"error_limit": [1]}, "error_limit"),
        ({"image": 5}, "image"),
        ({"image": "../../secret"}, "image"),
        ({"image": "/etc"}, "image"),
        ({"image": ""}, "image"),
        ({"image": ".."}, "outside the run's folder"),
    ],
    ids=str,
)
def test_a_summary_of_other_kinds_of_values_is_refused_by_name(runs, tmp_path, change, said):
    file = runs[0] / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8"))
    summary["pictures"][0] |= change
    if change.get("image") == "..":
        shutil.copytree(runs[0] / "pictures" / "room2", runs[0], dirs_exist_ok=True)
    file.write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(str(runs[0]))) as error:
        write_report(runs, tmp_path / "report.html")
    assert said in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_pictures_that_links_fetch_from_elsewhere_are_refused(runs, tmp_path):
    secret = tmp_path / "secret"
    (runs[0] / "pictures" / "room2").rename(secret)
    (runs[0] / "pictures" / "room2").symlink_to(secret)
    with pytest.raises(ValueError, match="outside the run's folder"):
        write_report(runs, tmp_path / "report.html")
    # A run that is itself behind a link is as good as any.
    (runs[0] / "pictures" / "room2").unlink()
    secret.rename(runs[0] / "pictures" / "room2")
    (tmp_path / "link").symlink_to(runs[0])
    write_report([tmp_path / "link"], tmp_path / "report.html")


def test_what_is_not_a_number_is_null_in_the_summary_and_a_dash_on_the_page(runs, tmp_path):
    file = runs[0] / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8"))
    summary["pictures"][0] |= {"rmse": None, "lo": None}
    file.write_text(json.dumps(summary), encoding="utf-8")
    assert "<b>RMSE –</b>" in write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("image,", "picture,", 1), "expected the columns"),
        (lambda text: text.replace("rmse,", "", 1), "expected the columns"),
        (lambda text: "", "expected the columns"),
        (lambda text: "\0" + text, "expected the columns"),
        (lambda text: text + "nyuv2,x,8\r\n", "line 4: expected 16 values, found 3"),
        (lambda text: text[: text.rindex(",") + 1] + "fast\r\n", "line 3: expected a number as seconds, found 'fast'"),
        (lambda text: text.replace("room2,8", "room2,8.5"), "line 3: expected a number as scale, found '8.5'"),
        (lambda text: text + "a" * 200_000, "line 4: not readable as CSV"),
    ],
)
def test_rows_that_are_not_ours_are_refused_with_file_and_line(runs, change, said):
    file = runs[0] / "metrics.csv"
    file.write_text(change(file.read_text()), newline="")
    with pytest.raises(ValueError, match=re.escape(str(file))) as error:
        read_csv(file)
    assert said in str(error.value)
