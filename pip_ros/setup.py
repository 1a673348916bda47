"""Refuses to build where a real package of the same name is in reach; everything else is in pyproject.toml."""

import os
import sysconfig
from pathlib import Path

from setuptools import setup

NAMES = ("message_filters", "sensor_msgs_py", "cv_bridge", "launch", "launch_ros")


def real_packages() -> list[str]:
    """Folders of real ROS packages that the stand-ins would shadow or overwrite.

    Looks at the sourced ROS workspaces (AMENT_PREFIX_PATH) and at this interpreter's site-packages.
    """
    found = []
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        found += [str(p) for name in NAMES if (p := Path(prefix, "share", name, "package.xml")).exists()]
    site = Path(sysconfig.get_path("purelib"))
    for name in NAMES:
        init = site / name / "__init__.py"
        # Our own, from an earlier install, say so.
        if init.exists() and "IS_STAND_IN = True" not in init.read_text(encoding="utf-8"):
            found.append(str(init))
    return found


if (found := real_packages()) and os.environ.get("D2A2_PIP_ROS_FORCE") != "1":
    raise SystemExit(
        "d2a2-pip-ros not installed: the real packages are here already, at " + ", ".join(found) + ". "
        "Use those (nothing to install), or set D2A2_PIP_ROS_FORCE=1 to install the stand-ins all the same."
    )

setup()
