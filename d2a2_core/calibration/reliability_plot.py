"""The reliability plot of an uncertainty: what was predicted against what was observed. Needs the optional matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOT, _BAR, _ACCEPTED, _TARGET = "#1f5ab4", "#78a0d7", "#e1eee1", "#6e966e"
_SMALLEST_M = 1e-5  # errors and sigmas below are drawn there: the axes are logarithmic


def reliability_plot(table: dict[str, Any]) -> Figure:
    """Two panels of a table of :meth:`d2a2_core.calibration.reliability.Reliability.table`; write it with ``.savefig(path)``.

    Left: in each bin of predicted sigma, below which error 68 % of the pixels lie, both in millimetres on logarithmic axes; on
    the diagonal they agree. Right: the share of errors within sigma in each bin (dots) and kind of pixel (bars); 60 to 76 % is
    green.

    Raises:
        ImportError: matplotlib is not installed.
    """
    check_matplotlib()
    # Not pyplot: it would choose a backend for the whole process and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    _predicted_against_observed(left, table["bins"])
    _coverage(right, table)
    return figure


def check_matplotlib() -> None:
    """Raises ImportError, with what to install, where there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("the reliability plot needs the package matplotlib: pip install matplotlib") from error


def _predicted_against_observed(axes: Axes, bins: list[dict[str, float]]) -> None:
    sigma, error = (np.maximum([b[key] for b in bins], _SMALLEST_M) * 1000 for key in ("sigma", "error_68"))
    ends = min(sigma.min(), error.min()) / 1.3, max(sigma.max(), error.max()) * 1.3
    axes.plot(ends, ends, color="0.6")
    axes.plot(sigma, error, "o-", color=_DOT)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", color="0.88")
    axes.set(xlabel="predicted sigma [mm]", ylabel="68 % of the errors are below [mm]")


def _coverage(axes: Axes, table: dict[str, Any]) -> None:
    bins, groups = table["bins"], table["coverage"]
    number = np.arange(1, len(bins) + 1)
    kind = len(bins) + 1 + np.arange(1, len(groups) + 1)  # a gap between the two
    axes.axhspan(0.60, 0.76, color=_ACCEPTED, zorder=0)
    axes.axhline(0.68, color=_TARGET, zorder=1)
    axes.plot(number, [b["coverage"] for b in bins], "o", color=_DOT)
    axes.bar(kind, list(groups.values()), width=0.6, color=_BAR)
    for x, name in zip(kind, groups, strict=True):
        axes.text(x, 0.02, name, rotation=90, ha="center", va="bottom", fontsize="small")
    axes.set_xticks([*number, kind.mean()], [*map(str, number), "kind of pixel"])
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="y", color="0.88", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel("bin of sigma, small to large", loc="left")
    axes.set_title(f"share of errors within sigma, {table['images']} images", fontsize="medium")
