"""Mutated messages of every kind: pixels of the stated shape, or the readers' own errors, and little memory.

`D2A2_FUZZ=1000000 pytest test/core/messages/test_fuzz.py` reads as many as that; it takes ten minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

import message_fuzz

COUNT = int(os.environ.get("D2A2_FUZZ", "16000"))
_MOST_MB = 500


@pytest.mark.slow
def test_mutated_messages_are_read_or_refused():
    """In a process of its own, so that its memory can be told; one message that hangs would run into the time limit."""
    program = [sys.executable, "-W", "ignore", message_fuzz.__file__, str(COUNT)]
    paths = [str(Path(message_fuzz.__file__).parents[2]), str(Path(message_fuzz.__file__).parent)]
    done = subprocess.run(
        program,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120 + COUNT / 100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert sum(result["outcomes"].values()) == COUNT
    assert result["memory_mb"] < _MOST_MB
    # Every kind is read now and then, and refused now and then, or the mutations miss what they are for.
    kinds = {key.split(":")[0] for key in result["outcomes"]}
    for kind in kinds:
        codes = {key.split(": ")[1] for key in result["outcomes"] if key.startswith(f"{kind}:")}
        assert "read" in codes
        assert len(codes) > 1
    assert len(kinds) > 25
