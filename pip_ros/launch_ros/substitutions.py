"""Folders of installed packages."""

from dataclasses import dataclass

from ament_index_python import get_package_share_directory
from launch import LaunchContext
from launch.substitutions import Substitution


@dataclass
class FindPackageShare(Substitution):
    """The share folder of an installed package."""

    package: str

    def perform(self, context: LaunchContext) -> str:
        return get_package_share_directory(self.package)
