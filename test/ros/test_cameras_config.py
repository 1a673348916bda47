"""The cameras' files: what the real parameter parser makes of them, the table of topics, and the launch file that picks them."""

import re
from pathlib import Path

import pytest
import yaml
from parameter_files import declared

rclpy = pytest.importorskip(
    "rclpy", reason="needs rclpy (make venv installs it from PyPI; on a ROS machine source ROS)"
)

from d2a2_ros.parameter_table import SPECS  # noqa: E402
from d2a2_ros.parameters import NodeParameters  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "config" / "cameras"
CAMERAS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "topics")
TOPICS = {"color_image", "color_info", "depth_image", "depth_info"}
NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*")  # of a topic


@pytest.fixture(scope="module")
def table():
    return yaml.safe_load((FOLDER / "topics.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def defaults():
    return declared(FOLDER.parent / "default.yaml")


def test_every_camera_has_a_file_and_topics(table):
    assert CAMERAS
    assert sorted(table) == CAMERAS
    for name, topics in table.items():
        assert set(topics) == TOPICS, name
        assert len(set(topics.values())) == len(TOPICS), f"{name} names a topic twice"
        assert all(NAME.fullmatch(topic) for topic in topics.values()), name


@pytest.mark.parametrize("camera", CAMERAS)
def test_parameters_are_the_nodes_own(camera, defaults):
    """Names, types and ranges; a wrong type (0 for 0.0, on for "on") would keep the node from starting."""
    values, specs = declared(FOLDER / f"{camera}.yaml"), {spec.name: spec for spec in SPECS}
    assert values
    assert set(values) <= set(specs)
    for name, value in values.items():
        assert type(value) is type(specs[name].default), name
        specs[name].check(value)
    assert values["registration"] in ("on", "off"), "a known camera needs no guess"
    assert values["min_depth"] < values["max_depth"]
    assert any(value != defaults[name] for name, value in values.items())


@pytest.mark.parametrize("camera", CAMERAS)
def test_file_says_where_it_comes_from(camera):
    text = (FOLDER / f"{camera}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "Not tried on hardware" in comment
    assert re.search(r"Driver: .*[\w-]+/[\w-]+.*\([0-9a-f]{7}\b", comment), "no repository and commit"
    assert re.search(r"\b(src|launch)/[\w./]+\.\w+", comment), "no source file"
    assert "ros2 launch" in comment


def test_registered_variants_are_not_registered_again(table):
    for name in CAMERAS:
        if name.endswith(("_registered", "_aligned")):
            assert declared(FOLDER / f"{name}.yaml")["registration"] == "off"
            raw = re.sub("_(registered|aligned)$", "", name)
            assert declared(FOLDER / f"{raw}.yaml")["registration"] == "on"
            assert {k: table[name][k] for k in ("color_image", "color_info")} == {
                k: table[raw][k] for k in ("color_image", "color_info")
            }


def test_page_lists_every_camera(repo):
    page = (repo / "docs" / "cameras.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for name in CAMERAS:
        assert sum(f"`{name}`" in row for row in rows) == 1, name


@pytest.mark.parametrize("camera", CAMERAS)
def test_node_takes_the_file(camera):
    """As the node declares them: a wrong type or a value out of range would raise ParameterError."""
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(FOLDER / f"{camera}.yaml")], context=context)
    try:
        parameters = NodeParameters(rclpy.create_node("upsample_node", context=context))
        content = yaml.safe_load((FOLDER / f"{camera}.yaml").read_text(encoding="utf-8"))
        for name, value in content["/**"]["ros__parameters"].items():
            assert getattr(parameters, name) == value
    finally:
        rclpy.shutdown(context=context)


def test_unquoted_on_would_be_refused(tmp_path):
    """Why the files write "on" with quotes."""
    (tmp_path / "bare.yaml").write_text("/**: {ros__parameters: {registration: on}}\n")
    assert declared(tmp_path / "bare.yaml")["registration"] is True


class TestLaunch:
    """Needs launch_ros; the probe stands where the node is and tells what reached it."""

    @pytest.mark.parametrize("camera", ["azure_kinect", "pmd_tof"])
    def test_camera_brings_topics_and_parameters(self, installed, table, camera, defaults):
        node = installed.probe("d2a2.launch.py", f"camera:={camera}")["upsample_node"]
        expected = [table[camera][name] for name in ("color_image", "color_info", "depth_image", "depth_info")]
        assert node["topics"] == ["/" + topic.lstrip("/") for topic in expected]
        mine = declared(FOLDER / f"{camera}.yaml")
        assert mine.items() <= node["parameters"].items()
        assert node["parameters"]["max_fill_px"] == defaults["max_fill_px"]

    def test_the_user_has_the_last_word(self, installed, tmp_path):
        params = tmp_path / "mine.yaml"
        params.write_text("/**: {ros__parameters: {max_depth: 3.5}}\n")
        node = installed.probe(
            "d2a2.launch.py", "camera:=azure_kinect", f"params_file:={params}", "color_image:=/other/image"
        )["upsample_node"]
        assert node["topics"][:2] == ["/other/image", "/rgb/camera_info"]
        assert node["parameters"]["max_depth"] == 3.5
        assert node["parameters"]["registration"] == "on"

    def test_unknown_camera_stops_the_launch(self, installed):
        process = installed.start("d2a2.launch.py", "camera:=kodak")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "camera must be one of azure_kinect," in output
