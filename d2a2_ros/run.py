"""Starting and ending a node: messages instead of tracebacks, a clean end on Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


def run(name: str, create: Callable[[], Node], args: list[str] | None = None) -> int:
    """Creates a node and spins it until a signal, or until its attribute ``finished`` turns true.

    Args:
        name: of the node, for messages.
        create: its class; a ValueError or RuntimeError of it or of its callbacks ends the process with the error's message.
        args: command line, default sys.argv.

    Returns:
        The exit status: 0, or 1 if the node could not start or go on.
    """
    node, status, initialised = None, 0, False
    try:
        rclpy.init(args=args)
        initialised = True
        node = create()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not getattr(node, "finished", False):
            executor.spin_once(timeout_sec=0.5)
        if rclpy.ok():  # let the middleware hand over what was published last
            executor.spin_once(timeout_sec=1.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, RuntimeError) as error:  # rclpy's own errors, of wrong arguments and files, are RuntimeErrors
        if rclpy.ok() or not initialised:  # else a signal took the middleware away under a running callback
            print(f"{name} cannot {'go on' if node else 'start'}: {error}", file=sys.stderr, flush=True)
            status = 1
    # Users press Ctrl-C twice; the second must not break off the clean end that the first began.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if node is not None:
        node.destroy_node()
    rclpy.try_shutdown()
    if getattr(node, "busy", False):
        # A frame is still being computed. Python cannot end a thread, and ending around it can crash or hang.
        os._exit(status)
    return status
