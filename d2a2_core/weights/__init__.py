"""Weights: files, the ones that ship with the package, the authors' checkpoints, mixtures."""

from d2a2_core.defaults import DEFAULT_WEIGHTS
from d2a2_core.weights.files import WeightsError, WeightsInfo, load_weights, read_info, save_weights, sha256
from d2a2_core.weights.mixing import mix_weights, save_mixed
from d2a2_core.weights.official import check_archive, from_official, load_official_checkpoint, to_official
from d2a2_core.weights.zoo import (
    PRETRAINED,
    RANKED,
    add_pretrained,
    checksums,
    list_pretrained,
    load_any,
    resolve_weights,
)

__all__ = [
    "DEFAULT_WEIGHTS",
    "PRETRAINED",
    "RANKED",
    "WeightsError",
    "WeightsInfo",
    "add_pretrained",
    "check_archive",
    "checksums",
    "from_official",
    "list_pretrained",
    "load_any",
    "load_official_checkpoint",
    "load_weights",
    "mix_weights",
    "read_info",
    "resolve_weights",
    "save_mixed",
    "save_weights",
    "sha256",
    "to_official",
]
