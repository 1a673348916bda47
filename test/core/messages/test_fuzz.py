"""Mutated messages of every kind: pixels of the stated shape, or the readers' own errors, and little memory.

`D2A2_FUZZ=1000000 pytest test/core/messages/test_fuzz.py` reads as many as that; it takes ten minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import fuzz_count
from PIL import Image

pytest.importorskip("rosbags", reason="needs rosbags (pip install rosbags)")

import message_fuzz

COUNT = fuzz_count(8000)
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


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_largest_image_takes_less_memory_than_that(tmp_path, mode):
    """A progressive JPEG is kept whole, as coefficients of all its components, while it is decoded."""
    path = tmp_path / "large.jpg"
    Image.new(mode, (6000, 6000), 90).save(path, progressive=True, subsampling=0)
    program = (
        "import sys, resource; from d2a2_core import images\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pixels = images.color_pixels(images.read_image(sys.argv[1]))\n"
        "print(pixels.shape, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    root = str(Path(message_fuzz.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    shape, megabytes = done.stdout.rsplit(None, 1)
    assert shape == "(6000, 6000, 3)"
    assert int(megabytes) < _MOST_MB
