"""Where weights come from: what their cards tell, so that anyone can repeat the run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from d2a2_core.training.config import TrainConfig
from d2a2_core.weights import read_info, resolve_weights


def provenance(config: TrainConfig) -> dict:
    """What is needed to repeat the run: command, settings, git revision, versions, start time; the same of its init."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown (not a git checkout)"
    start = {"init": read_info(resolve_weights(config.init)).card} if config.init else {}
    return start | {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "settings": json.loads(json.dumps(vars(config))),
        "revision": revision,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
