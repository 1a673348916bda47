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

from d2a2_core.data.scenes.scene_folder import read_manifest
from d2a2_core.documents import check_schema, read_json
from d2a2_core.training.config import TrainConfig
from d2a2_core.weights import read_info, resolve_weights


def _credits(config: TrainConfig) -> dict:
    """Who made the models of the scenes trained on, where their licence wants that told: licence -> creator -> models."""
    credits: dict[str, dict[str, set[str]]] = {}
    for folder in config.root.split(",") if config.data in ("generated", "mixed") else ():
        for model in (read_manifest(folder) or {}).get("models", ()):
            if model["licence"] != "CC0":
                credits.setdefault(model["licence"], {}).setdefault(model["creator"], set()).add(model["name"])
    if not credits:
        return {}
    return {"credits": {licence: {who: sorted(names) for who, names in by.items()} for licence, by in credits.items()}}


def is_run(folder: Path) -> bool:
    """Whether a folder holds a training run, by its provenance.json: its files may be replaced or gone on with."""
    try:
        check_schema(read_json(folder / "provenance.json"), {"type": "object", "required": ["command", "settings"]}, "")
    except (OSError, ValueError):
        return False
    return True


def provenance(config: TrainConfig) -> dict:
    """What is needed to repeat the run: command, settings, git revision, versions, start time; the same of its init.

    And ``credits``, where models that the training scenes show have a licence that asks for it.
    """
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown (not a git checkout)"
    start = {"init": read_info(resolve_weights(config.init)).card} if config.init else {}
    return (
        start
        | _credits(config)
        | {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "settings": json.loads(json.dumps(vars(config))),
            "revision": revision,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    )
