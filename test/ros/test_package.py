"""What package.xml, setup.py, the scripts, the configuration and the imports say about each other."""

import ast
import os
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import d2a2_core

# What ROS calls a Python package that is imported under another name.
ROSDEP_KEYS = {
    "PIL": "python3-pil", "numpy": "python3-numpy", "scipy": "python3-scipy", "torch": "python3-torch",
    "tqdm": "python3-tqdm", "yaml": "python3-yaml",
}  # fmt: skip
ROS_MODULES = {
    "rclpy", "rclcpp", "rosidl_runtime_py", "rpyutils", "message_filters", "cv_bridge", "sensor_msgs_py",
    "image_geometry", "tf2_ros", "tf2_py", "ament_index_python", "launch", "launch_ros", "rosbag2_py", "rosbags",
    "d2a2_ros",
}  # fmt: skip


def imported(text: str) -> set[str]:
    """Top-level names of all modules that a source file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            names |= {str(arg.value).split(".")[0] for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return names


def of_ros(names: set[str]) -> set[str]:
    """Those of ``names`` that only a ROS installation has."""
    return {name for name in names if name in ROS_MODULES or name.endswith(("_msgs", "_interfaces"))}


def setup_argument(repo: Path, name: str) -> ast.expr:
    """The expression that setup.py passes to setup() as ``name``."""
    for node in ast.walk(ast.parse((repo / "setup.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup":
            return next(keyword.value for keyword in node.keywords if keyword.arg == name)
    raise AssertionError("setup.py has no call of setup()")


@pytest.fixture(scope="module")
def manifest(repo) -> ElementTree.Element:
    return ElementTree.parse(repo / "package.xml").getroot()


@pytest.fixture(scope="module")
def exec_depends(manifest) -> list[str]:
    return [element.text for tag in ("depend", "exec_depend") for element in manifest.findall(tag)]


def test_manifest_is_an_ament_python_package(manifest, repo):
    assert (manifest.tag, manifest.get("format")) == ("package", "3")
    assert manifest.findtext("name") == "d2a2_ros"
    assert (repo / "resource" / "d2a2_ros").is_file()
    assert manifest.findtext("export/build_type") == "ament_python"
    assert "Apache License" in (repo / "LICENSE").read_text()
    assert manifest.findtext("license") == "Apache-2.0"


def test_manifest_depends(exec_depends):
    assert len(exec_depends) == len(set(exec_depends)), "a dependency is listed twice"
    missing = {
        "rclpy", "sensor_msgs", "diagnostic_msgs", "message_filters", "sensor_msgs_py", "cv_bridge", "launch",
        "launch_ros",
    } - set(exec_depends)  # fmt: skip
    assert not missing


def test_one_version(manifest, repo):
    in_setup = ast.literal_eval(setup_argument(repo, "version"))
    assert manifest.findtext("version") == in_setup == d2a2_core.__version__


@pytest.mark.parametrize("folder", ["d2a2_ros", "launch"])
def test_imports_of_the_ros_side_are_declared(repo, exec_depends, folder):
    files = sorted((repo / folder).rglob("*.py"))
    assert files
    for file in files:
        outside = imported(file.read_text()) - set(sys.stdlib_module_names) - {"d2a2_core", "d2a2_ros"}
        undeclared = {name for name in outside if ROSDEP_KEYS.get(name, name) not in exec_depends}
        assert not undeclared, f"{file.relative_to(repo)} imports {undeclared}, which package.xml does not list"


def test_core_is_free_of_ros(repo, exec_depends):
    files = sorted((repo / "d2a2_core").rglob("*.py"))
    assert len(files) > 10
    for file in files:
        names = imported(file.read_text()) - {"rosbags"}  # reads bags without ROS
        found = of_ros(names) | names & set(exec_depends)
        assert not found, f"{file.relative_to(repo)} imports {found}; ROS belongs in d2a2_ros"


@pytest.mark.parametrize(
    "line",
    [
        "import rclpy", "def f():\n    from sensor_msgs.msg import Image", "import numpy, rclpy.node as n",
        "importlib.import_module('cv_bridge.core')",
        "try:\n    import rcl_interfaces.msg\nexcept ImportError:\n    pass",
    ],
)  # fmt: skip
def test_ros_imports_are_found_wherever_they_stand(line):
    assert of_ros(imported(line))
    assert not of_ros(imported("import numpy\nfrom torch import nn\nfrom . import rclpy\n"))


def test_executables_lead_to_functions(repo):
    executables = setup_argument(repo, "entry_points")
    assert "d2a2_core.cli:main" in ast.unparse(executables)
    for name in ("upsample_node", "recording_player"):
        script = repo / "scripts" / name
        assert os.access(script, os.X_OK), f"{script} must be executable: launch starts it by its path"
        assert name in (repo / "setup.py").read_text()
        tree = ast.parse(script.read_text())
        (source,) = (node for node in tree.body if isinstance(node, ast.ImportFrom))
        module = repo / (source.module.replace(".", "/") + ".py")
        defined = {node.name for node in ast.parse(module.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert {alias.name for alias in source.names} <= defined


def test_default_yaml_is_the_parameter_table(repo):
    pytest.importorskip("rclpy", reason="the parameter table needs rclpy")
    from d2a2_ros.parameter_table import SPECS

    content = yaml.safe_load((repo / "config" / "default.yaml").read_text())
    assert list(content) == ["/**"]
    assert list(content["/**"]) == ["ros__parameters"]
    in_yaml = content["/**"]["ros__parameters"]
    specs = [spec for spec in SPECS if spec.type is None]  # the others need not be set
    assert list(in_yaml) == [spec.name for spec in specs]
    for spec in specs:
        assert in_yaml[spec.name] == spec.default, spec.name
        # ROS does not turn an integer of a file into a double, nor a double into an integer.
        assert type(in_yaml[spec.name]) is type(spec.default), spec.name


@pytest.mark.parametrize("name", ["config/default.yaml", "docs/topics.md"])
def test_parameters_are_documented_as_the_code_says(repo, name):
    pytest.importorskip("rclpy", reason="the parameter tables need rclpy")
    text = (repo / name).read_text()
    generate = runpy.run_path(str(repo / "scripts" / "generate_docs.py"))["GENERATED"][name]
    assert text == generate(text), f"{name} is out of date; run: python scripts/generate_docs.py"


def test_generated_documents_hold_every_parameter(repo):
    """What the generator must not lose: meaning, range, choices, default, and whether it may change at run time."""
    pytest.importorskip("rclpy", reason="the parameter tables need rclpy")
    from d2a2_ros import parameter_table, recording_player

    config, page = ((repo / name).read_text() for name in ("config/default.yaml", "docs/topics.md"))
    comments = " ".join(line.strip().removeprefix("# ") for line in config.splitlines())
    for specs in (parameter_table.SPECS, recording_player.SPECS):
        for spec in specs:
            meaning = spec.description + (f" From {spec.bounds[0]} to {spec.bounds[1]}." if spec.bounds else "")
            assert all(str(choice) in meaning for choice in spec.choices), spec.name
            row = next(line for line in page.splitlines() if line.startswith(f"| `{spec.name}` |"))
            default = spec.default if spec.type is None else "(not set)"
            shown = str(default).lower() if isinstance(default, bool) else "(empty)" if default == "" else default
            assert f"| {shown} |" in row, spec.name
            assert ("| live |" in row) == spec.live, spec.name
            assert f"| {meaning} {spec.details}".rstrip() in row, spec.name
            if specs is parameter_table.SPECS:
                assert f"{'(live) ' if spec.live else ''}{meaning} {spec.name}: " in comments, spec.name


def test_readme_names_every_parameter(repo):
    pytest.importorskip("rclpy", reason="the parameter table needs rclpy")
    from d2a2_ros.parameter_table import SPECS

    missing = {spec.name for spec in SPECS} - set(re.findall(r"`(\w+)`", (repo / "README.md").read_text()))
    assert not missing, missing


def test_every_parameter_has_an_effect(repo):
    """Each is a setting of the pipeline or of the stream, or the node reads it."""
    pytest.importorskip("rclpy", reason="the parameter table needs rclpy")
    from dataclasses import fields

    from d2a2_core.pipeline import PipelineSettings
    from d2a2_core.stream import StreamOptions
    from d2a2_ros.parameter_table import SPECS

    passed_on = {f.name for kind in (PipelineSettings, StreamOptions) for f in fields(kind)}
    sources = ((repo / "d2a2_ros" / name).read_text() for name in ("node.py", "budget.py"))
    read = {name for source in sources for name in re.findall(r"settings\.(\w+)", source)}
    without = {spec.name for spec in SPECS} - passed_on - read
    assert not without, without


def test_setup_installs_every_launch_file_and_configuration(repo, monkeypatch):
    given = {}
    monkeypatch.chdir(repo)
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    runpy.run_path("setup.py")
    installed = {(folder, file) for folder, files in given["data_files"] for file in files}
    missing = {
        path
        for folder, suffixes in (("launch", {".py"}), ("config", {".yaml", ".xml"}))
        for path in (p.relative_to(repo) for p in (repo / folder).rglob("*") if p.suffix in suffixes)
        if (f"share/d2a2_ros/{path.parent}", str(path)) not in installed
    }
    assert not missing, missing


def test_generator_tells_of_a_page_without_its_marks(repo):
    generate = runpy.run_path(str(repo / "scripts" / "generate_docs.py"))["GENERATED"]
    with pytest.raises(ValueError, match="end of settings"):
        generate["docs/training.md"]("# Training\n")


def test_topics_page_has_every_topic(repo):
    """Each topic that the node's code names."""
    pytest.importorskip("rclpy", reason="the node's outputs need rclpy")
    from d2a2_ros.node import OUTPUTS

    page = (repo / "docs" / "topics.md").read_text()
    tree = ast.parse((repo / "d2a2_ros" / "node.py").read_text())
    strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    topics = {s for s in strings if re.fullmatch(r"(color|depth)/\w+|/diagnostics", s)}
    # The outputs' topics are made of their names.
    topics |= {f"depth_upsampled/{name}" for name in OUTPUTS}
    assert len(topics) >= 8
    assert not {topic for topic in topics if f"`{topic}`" not in page}
