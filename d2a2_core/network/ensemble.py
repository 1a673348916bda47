"""Self-ensemble: the mean of a network's answers to a pair as it is, turned and mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

View = tuple[int, bool]  # quarter turns, and whether the image is mirrored first

# Two views bring half of what eight do, four nearly all of it.
VIEWS: dict[int, tuple[View, ...]] = {
    1: ((0, False),),
    2: ((0, False), (2, False)),
    4: tuple((turns, False) for turns in range(4)),
    8: tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}


def run_views(model: Callable[..., Tensor], views: int, *inputs: Tensor) -> Tensor:
    """The mean of what a network makes of several views of a pair, each brought back.

    A network trained on all eight views still makes errors that depend on the view; these average out. The views are computed one
    after the other: the time is that of as many frames, the memory that of one. Source: Timofte et al., "Seven ways to
    improve example-based single image super resolution", CVPR 2016.

    Args:
        model: called as ``model(guide, lr)`` or ``model(guide, lr, trust)``.
        views: 1, 2 (turned by half), 4 (all quarter turns) or 8 (these and their mirror images).
        inputs: guide (B, 3, H, W), lr and, where the model takes it, trust (B, 1, H / s, W / s).

    Returns:
        (B, 1, H, W) float32.

    Raises:
        ValueError: another number of views.
    """
    check_views(views)
    return mean_over(model, VIEWS[views], *inputs)


def mean_over(model: Callable[..., Tensor], views: Sequence[View], *inputs: Tensor) -> Tensor:
    """:func:`run_views` over just these views, at least one."""
    return sum(_back(model(*(_view(x, *view) for x in inputs)).float(), *view) for view in views) / len(views)


def check_views(views: int) -> None:
    """Raises ValueError for a number of views that :func:`run_views` does not know."""
    if views not in VIEWS:
        raise ValueError(f"ensemble must be one of {tuple(VIEWS)}, got {views!r}")


def _view(x: Tensor, turns: int, mirrored: bool) -> Tensor:
    if not turns and not mirrored:
        return x
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1)).contiguous()


def _back(x: Tensor, turns: int, mirrored: bool) -> Tensor:
    x = torch.rot90(x, -turns, (-2, -1)) if turns else x
    return x.flip(-1) if mirrored else x
