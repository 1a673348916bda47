"""The recipes for other packages: their launch files with stand-ins for those packages, their parameters, topics and pages."""

import re
from pathlib import Path

import pytest
import yaml
from launch_files import probe
from parameter_files import declared

rclpy = pytest.importorskip(
    "rclpy", reason="needs rclpy (make venv installs it from PyPI; on a ROS machine source ROS)"
)

from d2a2_ros.parameter_table import SPECS  # noqa: E402
from d2a2_ros.parameters import NodeParameters  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
CONFIG, LAUNCH, PAGES = REPO / "config" / "recipes", REPO / "launch" / "recipes", REPO / "docs" / "recipes"
RECIPES = ("image_transport", "laserscan", "moveit", "nav2", "nvblox", "rtabmap")

#: Full name of each node of another package: the file of its source in which the names were read, and the names. Commits and
#: branches are on the recipes' pages. Of "a.b" a value is read for each b.
THEIR_PARAMETERS = {
    "/depthimage_to_laserscan": (
        "ros-perception/depthimage_to_laserscan src/DepthImageToLaserScanROS.cpp",
        {"scan_time", "range_min", "range_max", "scan_height", "output_frame"},
    ),
    "/nvblox_node": (
        "NVIDIA-ISAAC-ROS/isaac_ros_nvblox nvblox_ros/include/nvblox_ros/node_params.hpp, nvblox_node.cpp, transformer.cpp, "
        "mapper_initialization.cpp",
        {
            "num_cameras", "use_depth", "use_color", "use_lidar", "use_tf_transforms", "global_frame", "input_qos", "voxel_size",
            "esdf_mode", "map_clearing_frame_id", "map_clearing_radius_m", "static_mapper.esdf_slice_height",
            "static_mapper.esdf_slice_min_height", "static_mapper.esdf_slice_max_height",
            "static_mapper.projective_integrator_max_integration_distance_m",
        },
    ),
    "/rgbd_odometry": (
        "introlab/rtabmap_ros rtabmap_odom/src/OdometryROS.cpp, nodelets/rgbd_odometry.cpp",
        {"frame_id", "approx_sync", "topic_queue_size", "sync_queue_size"},
    ),
    "/rtabmap": (
        "introlab/rtabmap_ros rtabmap_slam/src/CoreWrapper.cpp, rtabmap_sync/src/CommonDataSubscriber.cpp",
        {"frame_id", "subscribe_depth", "subscribe_odom_info", "approx_sync", "topic_queue_size", "sync_queue_size"},
    ),
    "/local_costmap/local_costmap": (
        "ros-navigation/navigation2 nav2_costmap_2d/plugins/voxel_layer.cpp, obstacle_layer.cpp, src/costmap_2d_ros.cpp",
        {
            "plugins",
            *(
                f"voxel_layer.{name}"
                for name in (
                    "plugin", "enabled", "publish_voxel_map", "origin_z", "z_resolution", "z_voxels", "max_obstacle_height",
                    "mark_threshold", "observation_sources",
                )
            ),
            *(
                f"voxel_layer.depth.{name}"
                for name in (
                    "topic", "data_type", "min_obstacle_height", "max_obstacle_height", "marking", "clearing",
                    "obstacle_min_range", "obstacle_max_range", "raytrace_min_range", "raytrace_max_range",
                    "expected_update_rate",
                )
            ),
        },
    ),
}  # fmt: skip
#: moveit/moveit2 moveit_ros/perception/pointcloud_octomap_updater/src/pointcloud_octomap_updater.cpp: setParams returns false
#: where one of these is missing; sensor_plugin: moveit_ros/occupancy_map_monitor/src/occupancy_map_monitor_middleware_handle.cpp.
MOVEITS_UPDATER = {
    "sensor_plugin", "point_cloud_topic", "max_range", "padding_offset", "padding_scale", "point_subsample", "max_update_rate",
    "filtered_cloud_topic",
}  # fmt: skip
#: Launch file: (package, executable, its own topics), as the other package names them.
THEIR_TOPICS = {
    "laserscan": [("depthimage_to_laserscan", "depthimage_to_laserscan_node", ("depth", "depth_camera_info"))],
    "nvblox": [
        (
            "nvblox_ros",
            "nvblox_node",
            (
                "camera_0/depth/image", "camera_0/depth/camera_info", "camera_0/color/image", "camera_0/color/camera_info",
            ),
        )
    ],
    "rtabmap": [
        ("rtabmap_odom", "rgbd_odometry", ("rgb/image", "rgb/camera_info", "depth/image")),
        ("rtabmap_slam", "rtabmap", ("rgb/image", "rgb/camera_info", "depth/image")),
    ],
}  # fmt: skip


def parameter_files() -> list[Path]:
    """Those in ROS' format."""
    return sorted(path for path in CONFIG.glob("*.yaml") if path.stem != "moveit_sensors_3d")


def nodes_of(path: Path) -> dict[str, dict]:
    """Full name of each node in a parameter file, without wildcards: its parameters, nested ones joined by points."""

    def walk(name: str, entry: dict):
        for key, value in entry.items():
            if key == "ros__parameters":
                yield name, dict(flat("", value))
            else:
                yield from walk(f"{name}/{key.removeprefix('/**/').lstrip('/')}", value)

    def flat(prefix: str, values: dict):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(f"{prefix}{key}.", value)
            else:
                yield prefix + key, value

    return dict(walk("", yaml.safe_load(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def contract() -> set[str]:
    """Our topics, by docs/topics.md."""
    return set(
        re.findall(r"^\| `([a-z_]+/[\w/]+)` \|", (REPO / "docs" / "topics.md").read_text(encoding="utf-8"), re.M)
    )


def test_every_recipe_has_a_page_and_parameters_of_ours():
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(RECIPES)
    assert {path.stem for path in parameter_files()} == set(RECIPES)
    assert {path.name.removesuffix(".launch.py") for path in LAUNCH.glob("*.py")} == set(THEIR_TOPICS)
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert {name for name in RECIPES if f"({name}.md)" in index} == set(RECIPES)


@pytest.mark.parametrize("path", parameter_files(), ids=lambda path: path.stem)
def test_parameters_are_known_to_their_nodes(path):
    """Each node in the file is ours or one whose parameters were read in its source; rcl gives it what the file says."""
    nodes = nodes_of(path)
    assert "/upsample_node" in nodes
    known = {"/upsample_node": {spec.name for spec in SPECS}} | {n: names for n, (_, names) in THEIR_PARAMETERS.items()}
    for node, values in nodes.items():
        assert not set(values) - known[node], node
        assert declared(path, node) == values
        # A namespace of the user's does not keep the parameters from a node of ours, nor from one that the recipe starts.
        if not node.startswith("/local_costmap"):
            assert declared(path, f"/front{node}") == values


@pytest.mark.parametrize("path", parameter_files(), ids=lambda path: path.stem)
def test_the_node_takes_the_file_and_something_is_changed_by_it(path):
    """As the node declares them: a wrong type or a value out of range would raise ParameterError."""
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    try:
        parameters = NodeParameters(rclpy.create_node("upsample_node", context=context))
        parameters.pipeline(), parameters.stream()
        values, defaults = nodes_of(path)["/upsample_node"], {spec.name: spec.default for spec in SPECS}
        assert all(getattr(parameters, name) == value for name, value in values.items())
        assert all(value != defaults[name] for name, value in values.items()), "says what is so anyway"
    finally:
        rclpy.shutdown(context=context)


def test_moveits_sensors_are_complete(contract):
    content = yaml.safe_load((CONFIG / "moveit_sensors_3d.yaml").read_text(encoding="utf-8"))
    assert set(content) == {"sensors", "octomap_resolution", *content["sensors"]}
    for sensor in content["sensors"]:
        assert set(content[sensor]) == MOVEITS_UPDATER
        assert content[sensor]["point_cloud_topic"].lstrip("/") in contract
        # MoveIt reads doubles; of a YAML integer it would not take the parameter.
        for name in ("max_range", "padding_offset", "padding_scale", "max_update_rate"):
            assert isinstance(content[sensor][name], float), name
        assert isinstance(content[sensor]["point_subsample"], int)


def test_the_voxel_layer_marks_something(contract):
    """What its defaults would leave out: heights up to 0, laser scans only, more voxels than there can be."""
    values = nodes_of(CONFIG / "nav2.yaml")["/local_costmap/local_costmap"]
    layer = {k.removeprefix("voxel_layer."): v for k, v in values.items()}
    assert layer["depth.data_type"] == "PointCloud2"
    assert layer["depth.topic"].lstrip("/") in contract
    assert layer["depth.min_obstacle_height"] < layer["depth.max_obstacle_height"] <= layer["max_obstacle_height"]
    assert layer["z_voxels"] <= 16
    assert layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"] >= layer["max_obstacle_height"]
    assert layer["depth.obstacle_max_range"] <= layer["depth.raytrace_max_range"]
    assert "voxel_layer" in values["plugins"]


@pytest.mark.parametrize(
    "path",
    [*LAUNCH.glob("*.py"), *CONFIG.glob("*.yaml"), *PAGES.glob("*.md")],
    ids=lambda path: f"{path.stem}{path.suffix}",
)
def test_our_topics_and_parameters_exist_wherever_they_are_named(path, contract):
    text = path.read_text(encoding="utf-8")
    named = {name.rstrip("/") for name in re.findall(r"(?:depth_upsampled)/[\w/]+", text)}
    assert not named - contract, "docs/topics.md does not have them"
    # `name: value` in a page is a parameter of ours or of theirs.
    known = {spec.name for spec in SPECS} | MOVEITS_UPDATER | {"octomap_resolution", "image_transport"}
    known |= {full.split(".")[-1] for _, names in THEIR_PARAMETERS.values() for full in names}
    if path.suffix == ".md":
        assert not set(re.findall(r"`(\w+): [^`]+`", text)) - known


@pytest.mark.parametrize("name", RECIPES)
def test_pages_explain_the_values_that_the_files_set(name):
    """Where the first cell of a table's row is `name: value`."""
    rows = re.findall(r"^\| (`\w+: .*?) \|", (PAGES / f"{name}.md").read_text(encoding="utf-8"), re.M)
    explained = [given for row in rows for given in re.findall(r"`(\w+): (.+?)`", row)]
    set_here = [pair for values in nodes_of(CONFIG / f"{name}.yaml").values() for pair in values.items()]
    if name == "moveit":
        content = yaml.safe_load((CONFIG / "moveit_sensors_3d.yaml").read_text(encoding="utf-8"))
        set_here += [*content.items(), *content["d2a2_points"].items()]
    assert explained or name == "image_transport"
    for parameter, value in explained:
        assert yaml.safe_load(value) in [v for key, v in set_here if key.split(".")[-1] == parameter], parameter


@pytest.mark.parametrize("name", RECIPES)
def test_pages_say_what_was_read_and_what_was_not_tried(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert re.search(r"\b[\w-]+/[\w-]+, branch `?[\w.-]+`? \(`?[0-9a-f]{7}`?", text), "no repository, branch and commit"
    assert "Not tried" in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert (PAGES / link).exists(), link


class TestLaunch:
    """Needs launch_ros. Probes stand where our node and the other packages' are, and tell what reached them."""

    def start(self, installed, name, *arguments):
        for package, executable, topics in THEIR_TOPICS[name]:
            installed.executable(executable, probe(topics), package)
        return installed.probe(f"recipes/{name}.launch.py", *arguments)

    @pytest.mark.parametrize("name", THEIR_TOPICS)
    def test_both_sides_meet(self, installed, contract, name):
        """Every topic of theirs is one of our outputs, or the very topic that our node takes its colour from."""
        seen = self.start(installed, name)
        ours = seen.pop("upsample_node")
        assert ours["parameters"].items() >= nodes_of(CONFIG / f"{name}.yaml")["/upsample_node"].items()
        assert set(seen) == {executable for _, executable, _ in THEIR_TOPICS[name]}
        for node in seen.values():
            assert not set(node["topics"]) - {f"/{topic}" for topic in contract}
            assert any("/depth_upsampled/" in topic for topic in node["topics"])
            assert node["parameters"].items() >= nodes_of(CONFIG / f"{name}.yaml")[node["name"]].items()
            assert node["parameters"]["use_sim_time"] is False
            assert node["environment"]["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds.xml")

    @pytest.mark.parametrize("name", THEIR_TOPICS)
    def test_arguments_reach_both_sides(self, installed, name):
        arguments = ("camera:=azure_kinect", "namespace:=front", "use_sim_time:=true", "log_level:=warn")
        seen = self.start(installed, name, *arguments)
        ours = seen.pop("upsample_node")
        assert ours["parameters"]["registration"] == "on"
        for node in seen.values():
            assert node["name"].startswith("/front/")
            assert node["parameters"]["use_sim_time"] is True
            assert (
                node["parameters"].items()
                >= nodes_of(CONFIG / f"{name}.yaml")[node["name"].removeprefix("/front")].items()
            )
            assert node["log_level"] == ours["log_level"] == "WARN"
            colour = {topic for topic in node["topics"] if "depth_upsampled" not in topic}
            assert colour <= set(ours["topics"][:2]) == {"/rgb/image_raw", "/rgb/camera_info"}
            assert all(t.startswith("/front/depth_upsampled/") for t in set(node["topics"]) - colour)

    def test_a_file_of_the_users_own_replaces_the_recipes(self, installed, tmp_path):
        mine = tmp_path / "mine.yaml"
        mine.write_text("/**/depthimage_to_laserscan: {ros__parameters: {scan_height: 3}}\n")
        seen = self.start(installed, "laserscan", f"params_file:={mine}", "color_image:=/cam/image")
        assert seen["depthimage_to_laserscan_node"]["parameters"]["scan_height"] == 3
        assert "max_fill_px" not in seen["upsample_node"]["parameters"]
        assert seen["upsample_node"]["topics"][0] == "/cam/image"

    def test_a_missing_package_is_named(self, installed):
        """Not installed here: the launch ends and says so; our node is not what failed."""
        for name in ("upsample_node", "recording_player"):
            installed.executable(name, probe())
        process = installed.start("recipes/nvblox.launch.py")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "nvblox_ros" in output
