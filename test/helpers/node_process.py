"""Nodes in processes of their own, forked from one that has imported PyTorch and rclpy: a fiftieth of a start's time."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

CONTEXT = multiprocessing.get_context("forkserver")
# rclpy is imported, never initialised there.
CONTEXT.set_forkserver_preload(["d2a2_ros.node", "d2a2_ros.recording_player", "d2a2_ros.demo"])


class ForkedProcess:
    """What the tests need of subprocess.Popen with both outputs in one pipe: pid, poll, wait, returncode, stdout, ..."""

    def __init__(self, function: Callable[..., int], *arguments: object) -> None:
        reader, writer = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_run, args=(writer, function, arguments))
        # What a failed test leaves behind ends with the tests; but such a process could not start others.
        self._process.daemon = function is not _demo
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; subprocess.TimeoutExpired if it still runs."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("forked process", timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """The rest of its output, a pipe's worth at most."""
        self.wait(timeout)
        return self.stdout.read(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def start(module: str, *arguments: str) -> ForkedProcess:
    """One of the package's nodes with a command line, as of ``python -m d2a2_ros.<module>``."""
    return ForkedProcess(_main, module, arguments)


def start_slow(*arguments: str) -> ForkedProcess:
    """A node whose worker is busy for ten minutes, as with a large network on a small machine; prints ``computing``."""
    return ForkedProcess(_slow, arguments)


def start_demo(*arguments: str) -> ForkedProcess:
    """The demo, whose node and player are forked too. It has this process's ROS domain, and its output is in one stream."""
    return ForkedProcess(_demo, arguments)


def _run(writer: Connection, function: Callable[..., int], arguments: tuple) -> None:
    for stream in (sys.stdout, sys.stderr):
        os.dup2(writer.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True)
    writer.close()
    sys.exit(function(*arguments))


def _main(module: str, arguments: tuple[str, ...]) -> int:
    return importlib.import_module(f"d2a2_ros.{module}").main(list(arguments))


def _slow(arguments: tuple[str, ...]) -> int:
    from d2a2_ros import node

    class Slow(node.UpsampleNode):
        def __init__(self) -> None:
            super().__init__()
            self._worker._work = lambda item: time.sleep(600)
            self._worker.put(object())
            time.sleep(0.3)
            print("computing")

    return node.run("slow", Slow, list(arguments))


def _demo(arguments: tuple[str, ...]) -> int:
    from d2a2_ros import demo

    def start_process(name: str, **parameters: object) -> ForkedProcess:
        forked = start(name, "--ros-args", *(a for k, v in parameters.items() for a in ("-p", f"{k}:={v}")))
        threading.Thread(target=lambda: [print(line, end="") for line in forked.stdout], daemon=True).start()
        return forked

    domain, environment = os.environ["ROS_DOMAIN_ID"], demo.demo_environment
    demo.demo_environment = lambda: environment() | {"ROS_DOMAIN_ID": domain}
    demo.start_process = start_process
    return demo.main(list(arguments))
