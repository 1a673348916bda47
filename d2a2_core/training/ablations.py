"""The ablations of the paper (arXiv 2401.08123, Tables 2 to 4) as options of one model, trained and tabulated."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

from d2a2_core.files import check_outputs, has_mark, replacing
from d2a2_core.network.aggregation import ATTENTIONS
from d2a2_core.network.alignment import DOMAIN_ALIGNMENTS
from d2a2_core.training.config import TrainConfig
from d2a2_core.training.curve import read_curve
from d2a2_core.training.trainer import train

_NO_DDA = {"domain": "none", "geometric": False}
_NO_MFA = {"gated": False, "attention": "none"}

# RMSE in cm on NYUv2 at x4, x8, x16, as published (facts from the paper, to compare with).
_PUBLISHED = {
    2: ((1.54, 3.09, 6.07), (1.32, 2.67, 5.19), (1.33, 2.69, 5.27), (1.30, 2.62, 5.12)),
    3: ((1.54, 3.09, 6.07), (1.33, 2.68, 5.29), (1.97, 3.81, 6.41), (1.33, 2.69, 5.25),
        (1.45, 2.87, 5.69), (1.33, 2.68, 5.27), (1.43, 2.86, 5.68), (1.32, 2.67, 5.19)),
    4: ((1.54, 3.09, 6.07), (1.35, 2.74, 5.37), (1.95, 3.89, 7.55), (1.94, 3.89, 7.58),
        (1.52, 2.99, 5.76), (1.43, 2.84, 5.49), (1.39, 2.81, 5.52), (1.33, 2.69, 5.27)),
}  # fmt: skip


def ablation_models(table: int) -> dict[str, dict]:
    """Row name -> options of :class:`d2a2_core.D2A2`, in the order of the paper's table.

    Table 2: DDA and MFA. Table 3: domain alignment x DGA, without MFA. Table 4: GC x attention, without DDA. Where MFA is
    left out, [F, guide] is concatenated and a convolution brings it back to C channels.
    """
    if table == 2:
        return {"baseline": _NO_DDA | _NO_MFA, "without MFA": dict(_NO_MFA), "without DDA": dict(_NO_DDA), "D2A2": {}}
    if table == 3:
        order = sorted(DOMAIN_ALIGNMENTS, key=["none", "instance_norm", "batch_norm", "lda"].index)
        return {
            f"{domain}{' + DGA' if geometric else ''}": {"domain": domain, "geometric": geometric} | _NO_MFA
            for domain, geometric in product(order, (False, True))
        }
    if table == 4:
        order = sorted(ATTENTIONS, key=["none", "channel", "spatial", "pixel"].index)
        return {
            f"{'GC + ' if gated else ''}{attention}": {"gated": gated, "attention": attention} | _NO_DDA
            for attention, gated in product(order, (False, True))
        }
    raise ValueError(f"the paper's ablations are in tables 2, 3 and 4; got {table}")


def run_ablation(table: int, config: TrainConfig, folder: str | Path) -> str:
    """Trains every row of a table (finished rows are kept, so it can be stopped and started) and returns the table.

    Args:
        table: 2, 3 or 4.
        config: of every row; its model must be a "d2a2", whose other options (scale, channels, ...) are kept.
        folder: gets one run folder per row, and table<N>.csv.
    """
    if config.model.get("model") != "d2a2":
        raise ValueError(f"ablations are of the model d2a2, got {config.model}")
    folder = Path(folder)
    scale = config.model.get("scale", 4)
    head = ("model", "validation RMSE", "bicubic", f"paper, NYUv2 x{scale} [cm]")
    out = folder / f"table{table}.csv"
    check_outputs([out], lambda path: has_mark(path, ",".join(head[:3]).encode()))
    rows = []
    for (name, options), published in zip(ablation_models(table).items(), _PUBLISHED[table], strict=True):
        run = folder / name.replace(" ", "_")
        train(replace(config, model=config.model | options), run)
        validated = [row for row in read_curve(run / "curve.csv") if row.get("val_rmse")]
        if not validated:
            raise ValueError(
                f"{run / 'curve.csv'} has no validation; remove the folder, and start the same command again"
            )
        best = min(validated, key=lambda row: float(row["val_rmse"]))
        rows.append((name, best["val_rmse"], best["bicubic_rmse"], published[(4, 8, 16).index(scale)]))
    with replacing(out) as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    lines = [head, *((n, f"{float(v):.5f}", f"{float(b):.5f}", f"{p:.2f}") for n, v, b, p in rows)]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(str(v).ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)
