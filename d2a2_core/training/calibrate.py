"""Trains the uncertainty head of weights (:mod:`d2a2_core.uncertainty`) and tells, on held-out scenes, how well it is calibrated.

Scenes are whole images under a simulated depth camera of random quality, as in training (:mod:`d2a2_core.data.degradation`) but
registered to within 3 pixels, or, one in seven, the clean reduction of the benchmarks. They go through
:class:`d2a2_core.pipeline.DepthPipeline`, so the errors are those of the depth that is published. Everything follows from the
seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from d2a2_core.data.degradation import degrade, random_settings
from d2a2_core.data.reduction import reduce_depth
from d2a2_core.data.sampling import SceneSource
from d2a2_core.pipeline import DepthPipeline, PipelineSettings
from d2a2_core.training.config import TrainConfig
from d2a2_core.training.provenance import provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.uncertainty import (
    FEATURES,
    QUANTILE,
    SigmaHead,
    grid_scale,
    pinball,
    save_sigma_head,
    sigma_features,
    sigma_path,
)
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import PRETRAINED, record_checksum, resolve_weights, sha256

SIZES = ((240, 320), (384, 384), (160, 224))  # of the scenes, in turn: what is near an edge depends on it
_CLEAN = 1 / 7  # share of scenes without a sensor's errors
_MISREGISTERED, _SHIFT_PX = 0.4, 3.0  # share of the others whose extrinsics are off, and by how much at most
_MAX_FILL_PX = 32.0  # twice the default, so that a larger limit finds a head that knows it
_PIXELS = 4000  # that the head learns of each image
_STEPS = 1500  # of the head's training
_EDGE_WEIGHT = 4.0  # a pixel near an edge counts 1 + scale / this
_JITTER = 0.1  # of the features, in their standard deviations
_EDGE_PX = 4  # pixels this near a depth edge of the truth are "near edges"
BINS = 10


@dataclass(frozen=True)
class Case:
    """One result with its truth: guide (1, 3, H, W), lr (1, 1, h, w) and hr (1, 1, H, W) as the head gets them; truth (H, W)."""

    guide: Tensor
    lr: Tensor
    hr: Tensor
    truth: np.ndarray
    clean: bool = False

    @property
    def scale(self) -> int:
        """Of the LR grid."""
        return grid_scale(tuple(self.hr.shape[-2:]), tuple(self.lr.shape[-2:]))


class Recorder:
    """Stands in the pipeline in place of a head, and keeps what it is given."""

    def to(self, device: torch.device) -> Recorder:
        """As of a module."""
        return self

    def predict(self, guide: Tensor, lr: Tensor, hr: Tensor) -> Tensor:
        """As of :meth:`SigmaHead.predict`."""
        self.seen = guide.cpu(), lr.cpu(), hr.cpu()
        return hr


def run_case(
    pipeline: DepthPipeline, color: np.ndarray, depth: np.ndarray, truth: np.ndarray, clean: bool = False
) -> Case:
    """What the head would get for a frame; the pipeline's head is a :class:`Recorder`. Arguments as of ``process``."""
    pipeline.reset()
    pipeline.process(color, depth)
    return Case(*pipeline.sigma_head.seen, truth, clean)


def recording_pipeline(upsampler: DepthUpsampler, max_fill_px: float = _MAX_FILL_PX) -> DepthPipeline:
    """A pipeline for registered depth whose head is a :class:`Recorder`."""
    settings = PipelineSettings(registration="off", max_fill_px=max_fill_px, watchdog=False)
    return DepthPipeline(upsampler, settings, Recorder())


def sensor_view(scene, scale: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """LR depth (h, w) metres, NaN invalid, of a scene (color, depth), and whether it is the clean reduction."""
    if rng.random() < _CLEAN:
        return reduce_depth(scene.depth, scale), True
    shift = _SHIFT_PX if rng.random() < _MISREGISTERED else 0.0
    settings = replace(random_settings(rng), shift_px=shift, rotation_deg=0.0)
    return degrade(scene.color, scene.depth, scale, rng, settings)[1], False


def cases(
    pipeline: DepthPipeline, source: SceneSource, count: int, seed: int, sizes: Sequence[tuple[int, int]] = SIZES
) -> Iterator[Case]:
    """``count`` results on scenes of ``source``, the scales of the weights and the sizes in turn.

    Args:
        sizes: (H, W) of the images, multiples of the largest scale.
    """
    scales = pipeline.upsampler.scales
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        size = sizes[index // len(scales) % len(sizes)]
        scene = source.scene(index, max(size))
        window = np.s_[: size[0], : size[1]]
        scene = type(scene)(np.ascontiguousarray(scene.color[window]), np.ascontiguousarray(scene.depth[window]))
        lr, clean = sensor_view(scene, scales[index % len(scales)], rng)
        if np.isfinite(lr).any():
            yield run_case(pipeline, scene.color, lr, scene.depth, clean)


# -- training ----------------------------------------------------------------------------------------------------------


def sample_pixels(case: Case, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, F), log errors (n,) and weights (n,) of pixels of a case.

    Half are drawn evenly, half from where the result varies or measurements are missing. That choice rests on features alone,
    which leaves the quantiles of the error for given features what they are. The weights do not: pixels near an edge of the
    truth count more, the more the coarser the measurements, which makes sigma slightly too large over all. Without that it is
    too small near the edges that a coarse measurement does not show (coverage 0.44 at x16, where 0.68 is wanted).
    """
    features = sigma_features(case.guide, case.lr, case.hr)[0]
    known = torch.isfinite(case.hr[0, 0]).numpy() & np.isfinite(case.truth)
    at = np.flatnonzero(known)
    if not len(at):
        return torch.empty(0, len(FEATURES)), torch.empty(0), torch.empty(0)
    rows, columns = at // known.shape[1] // 2, at % known.shape[1] // 2
    names = {name: i for i, name in enumerate(FEATURES)}
    rough = features[names["hr_range_14"]] - features[names["depth"]] > np.log(0.05)
    rare = (rough | (features[names["distance_cells"]] > 0)).numpy()[rows, columns]
    picked = rng.integers(len(at), size=count if not rare.any() else count // 2)
    if rare.any():
        picked = np.concatenate((picked, rng.choice(np.flatnonzero(rare), count // 2)))
    error = (case.hr[0, 0].numpy() - case.truth).ravel()[at[picked]]
    x = features[:, rows[picked], columns[picked]].T
    edge = near_edges(case.truth).ravel()[at[picked]]
    weight = 1 + edge * case.scale / _EDGE_WEIGHT
    return x.contiguous(), *(torch.from_numpy(v).float() for v in (np.log(np.abs(error) + 1e-5), weight))


def fit(
    samples: Sequence[tuple[Tensor, Tensor, Tensor]], seed: int, steps: int = _STEPS, batch: int = 4096
) -> SigmaHead:
    """A head for what :func:`sample_pixels` gave for each case."""
    x, target, weight = (torch.cat(parts) for parts in zip(*samples, strict=True))
    torch.manual_seed(seed)
    head = SigmaHead()
    head.mean.copy_(x.mean(0))
    head.std.copy_(x.std(0).clamp(min=1e-3))
    with torch.no_grad():  # start at the quantile of all
        head.rest[-1].weight.zero_()
        head.rest[-1].bias.fill_(target[:: max(1, len(target) // 100_000)].quantile(QUANTILE))
    optimiser = torch.optim.Adam(head.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in tqdm(range(steps), desc="fitting", unit="step", disable=None):
        picked = torch.randint(len(x), (batch,))
        # Features that are the same all over an image would tell the few hundred images apart; a little noise prevents it.
        seen = x[picked] + _JITTER * head.std * torch.randn(batch, x.shape[1])
        predicted = head(seen.T[None, :, :, None])[0, 0, :, 0]
        loss = pinball(target[picked] - predicted, weight=weight[picked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval().requires_grad_(False)


# -- how well it is calibrated -----------------------------------------------------------------------------------------


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


# -- the command -------------------------------------------------------------------------------------------------------


def _command(weights: Path, settings: dict[str, Any]) -> str:
    """What repeats it, without the places of files on this machine."""
    options = {k: settings[k] for k in ("seed", "images", "held_out", "data", "steps")}
    sizes = " ".join(f"{width}x{height}" for height, width in settings["sizes"])
    root = " --root FOLDER" if settings["root"] else ""
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    return f"d2a2 calibrate --weights {weights.stem} {flags} --size {sizes}{root}"


def calibrate(
    weights: str | Path,
    out: Path | None = None,
    seed: int = 0,
    images: int = 360,
    held_out: int = 90,
    data: str = "shapes",
    root: str = "",
    sizes: Sequence[tuple[int, int]] = SIZES,
    steps: int = _STEPS,
    device: str = "auto",
    plot: Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Makes the head of weights: results on generated scenes, training, and the coverage on held-out ones.

    Args:
        weights: shipped name or path.
        out: the head's file; default beside the weights, where :func:`load_sigma_head` finds it.
        images, held_out: scenes to train on, and to measure on.
        data, root: of the scenes, as of ``d2a2 train``.
        sizes: (H, W) of the scenes, in turn; multiples of the largest scale.
        steps: of the head's training.
        plot: PNG of the reliability plot.

    Returns:
        The head's path, and the table of :meth:`Reliability.table`.
    """
    weights = resolve_weights(weights)
    out = out or sigma_path(weights)
    config = TrainConfig(data=data, root=root, seed=seed)
    pipeline = recording_pipeline(DepthUpsampler.from_pretrained(weights, device, "float32"))
    rng = np.random.default_rng([seed, 1])
    bar = tqdm(
        cases(pipeline, training_source(config), images, seed, sizes), "scenes", images, unit="image", disable=None
    )
    samples = [sample_pixels(case, _PIXELS, rng) for case in bar]
    head = fit(samples, seed, steps)
    reliability = Reliability(seed)
    source = validation_source(config)
    bar = tqdm(cases(pipeline, source, held_out, seed + 1, sizes), "held-out", held_out, unit="image", disable=None)
    for case in bar:
        reliability.add(case, head.predict(case.guide, case.lr, case.hr))
    table = reliability.table()
    settings = {"data": data, "root": Path(root).name, "seed": seed, "images": images, "held_out": held_out}
    settings |= {"sizes": [list(size) for size in sizes], "steps": steps}
    card = provenance(config) | {
        "title": f"uncertainty head of {weights.name}",
        "command": _command(weights, settings),
        "weights_sha256": sha256(weights),
        "settings": settings,
        "held_out": table,
    }
    save_sigma_head(out, head, card)
    if out.resolve().parent == PRETRAINED.resolve():
        record_checksum(out)
    if plot:
        from d2a2_core.evaluation.reliability_plot import reliability_plot

        plot.parent.mkdir(parents=True, exist_ok=True)
        reliability_plot(table).save(plot)
    return out, table
