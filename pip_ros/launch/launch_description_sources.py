"""Reads launch files."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import LaunchDescription


def get_launch_description_from_python_launch_file(python_launch_file_path: str) -> LaunchDescription:
    """Returns what the file's ``generate_launch_description()`` returns."""
    return runpy.run_path(python_launch_file_path)["generate_launch_description"]()
