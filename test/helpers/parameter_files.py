"""Parameter files as rcl reads them."""

from __future__ import annotations

from pathlib import Path

_RCLPYS_OWN = ("use_sim_time", "start_type_description_service")


def declared(path: Path, node: str = "/upsample_node") -> dict:
    """The parameters that the node of this full name gets from ``path``."""
    import rclpy

    namespace, name = node.rsplit("/", 1)
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    try:
        made = rclpy.create_node(
            name, namespace=namespace, context=context, automatically_declare_parameters_from_overrides=True
        )
        return {key: p.value for key, p in made.get_parameters_by_prefix("").items() if key not in _RCLPYS_OWN}
    finally:
        rclpy.shutdown(context=context)
