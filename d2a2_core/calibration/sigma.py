"""Trains the uncertainty head of weights (:mod:`d2a2_core.network.sigma_head`) and measures its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from d2a2_core.calibration.cases import SIZES, Case, cases, recording_pipeline
from d2a2_core.calibration.reliability import Reliability, near_edges
from d2a2_core.calibration.reliability_plot import check_matplotlib, reliability_plot
from d2a2_core.files import replacing
from d2a2_core.network.sigma_head import BLOCK, FEATURES, QUANTILE, SigmaHead, pinball, sigma_features
from d2a2_core.training.config import TrainConfig
from d2a2_core.training.provenance import provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.upsampler import DepthUpsampler
from d2a2_core.weights import resolve_weights, sha256
from d2a2_core.weights.sidecars import SIGMA, save_sigma_head

_PIXELS = 4000  # that the head learns of each image
_STEPS = 1500  # of the head's training
_EDGE_WEIGHT = 4.0  # a pixel near an edge counts 1 + scale / this
_JITTER = 0.1  # of the features, in their standard deviations


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
    rows, columns = at // known.shape[1] // BLOCK, at % known.shape[1] // BLOCK
    names = {name: i for i, name in enumerate(FEATURES)}
    rough = features[names["hr_range_12"]] - features[names["depth"]] > np.log(0.05)
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
        plot: PNG of the reliability plot, which needs matplotlib.

    Returns:
        The head's path, and the table of :meth:`Reliability.table`.

    Raises:
        ImportError: a plot is asked for, and matplotlib is not installed.
    """
    if plot:
        check_matplotlib()  # now, not after minutes of work
    weights = resolve_weights(weights)
    out = out or SIGMA.path(weights)
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
    if plot:
        plot.parent.mkdir(parents=True, exist_ok=True)
        with replacing(plot) as partial:
            # The mark of our PNGs, see files.is_our_png.
            reliability_plot(table).savefig(partial, format="png", metadata={"Software": "d2a2"})
    return out, table
