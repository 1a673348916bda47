"""How well sigma is calibrated: the share of errors within it, by kind of pixel and in bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from d2a2_core.calibration.cases import Case

BINS = 10
_EDGE_PX = 4  # pixels this near a depth edge of the truth are "near edges"


class Reliability:
    """Collects errors and sigmas of cases, and tabulates the share of errors within sigma.

    Args:
        per_case: pixels drawn of each case; the whole image where it has fewer.
    """

    def __init__(self, seed: int = 0, per_case: int = 20_000) -> None:
        self._rng, self._per_case = np.random.default_rng(seed), per_case
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, case: Case, sigma: Tensor) -> None:
        """One case and its sigma (1, 1, H, W)."""
        hr = case.hr[0, 0].numpy()
        scale = case.scale
        known = np.isfinite(case.lr[0, 0].numpy()).repeat(scale, 0).repeat(scale, 1)[: hr.shape[0], : hr.shape[1]]
        at = np.flatnonzero(np.isfinite(hr) & np.isfinite(case.truth))
        at = self._rng.choice(at, min(self._per_case, len(at)), replace=False)
        columns = {
            "error": np.abs(hr - case.truth),
            "sigma": sigma[0, 0].numpy(),
            "measured": known,
            "edge": near_edges(case.truth),
            "seen_edge": near_edges(hr),
            "scale": np.full(hr.shape, scale),
            "clean": np.full(hr.shape, case.clean),
        }
        self._parts.append({key: value.ravel()[at] for key, value in columns.items()})

    def table(self) -> dict[str, Any]:
        """Coverage (share of errors within sigma) by kind of pixel and in ``BINS`` bins of sigma, each of the same size."""
        d = {key: np.concatenate([part[key] for part in self._parts]) for key in self._parts[0]}
        hit = d["error"] <= d["sigma"]
        groups = {
            "all": np.ones_like(hit),
            "measured": d["measured"],
            "filled": ~d["measured"],
            "near_edge": d["edge"],
            "near_result_edge": d["seen_edge"],
            "away_from_edges": ~d["edge"],
            "sensor": ~d["clean"],
            "clean": d["clean"],
            **{f"x{s}": d["scale"] == s for s in np.unique(d["scale"])},
        }
        order = np.array_split(np.argsort(d["sigma"], kind="stable"), BINS)
        return {
            "images": len(self._parts),
            "coverage": {k: round(float(hit[m].mean()), 3) for k, m in groups.items() if m.any()},
            "share": {k: round(float(m.mean()), 4) for k, m in groups.items() if m.any()},
            "bins": [
                {
                    "sigma": _figures(np.median(d["sigma"][part])),
                    "error_68": _figures(np.quantile(d["error"][part], 0.68)),
                    "coverage": round(float(hit[part].mean()), 3),
                }
                for part in order
            ],
        }


def near_edges(truth: np.ndarray) -> np.ndarray:
    """Pixels of a true depth map (H, W) within 4 pixels of a step of more than 5 % and 5 cm; NaN counts as no step."""
    side = 2 * _EDGE_PX + 1
    # Neighbours alone: over a wider window a slanted floor would be an edge.
    low = ndimage.minimum_filter(np.where(np.isfinite(truth), truth, np.inf), 3)
    high = ndimage.maximum_filter(np.where(np.isfinite(truth), truth, -np.inf), 3)
    step = (high - low > np.maximum(0.05 * truth, 0.05)) & np.isfinite(truth)
    return ndimage.maximum_filter(step, side - 2)


def format_table(table: dict[str, Any]) -> str:
    """The figures of :meth:`Reliability.table` as text."""
    lines = [f"{table['images']} images; 68 % interval, share of errors within it:"]
    lines += [f"  {k:<16}{c:6.1%}   of {table['share'][k]:6.1%} of the pixels" for k, c in table["coverage"].items()]
    lines += ["  sigma [m]   68 % of errors below [m]   coverage"]
    lines += [f"  {b['sigma']:<12.5f}{b['error_68']:<26.5f} {b['coverage']:6.1%}" for b in table["bins"]]
    return "\n".join(lines)


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
