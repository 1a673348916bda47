"""The curve of a training run: curve.csv, and TensorBoard where it is installed and wanted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2a2_core.files import replacing

# seconds since the start of the process, and how many of them it waited for batches; unguided: with another sample's guide;
# unaligned: with what deformable convolutions sample replaced by its mean over the image
COLUMNS = ("step", "loss", "lr", "seconds", "waited", "val_rmse", "unguided_rmse", "unaligned_rmse", "bicubic_rmse")
_PICTURES = 4


def read_curve(path: Path) -> list[dict[str, str]]:
    """Rows of a curve, by ``COLUMNS``, as text; what was not measured is empty. Rows that a kill has torn off are left out.

    Raises:
        ValueError: it is not such a file; the message names the line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        try:
            head = next(reader, [])
            if "step" not in head or not set(head) <= set(COLUMNS):
                raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(head)!r:.200}")
            rows = []
            for values in reader:
                row = dict(zip(head, values, strict=False))
                if len(values) < len(head) or not row["step"]:
                    continue
                place = f"{path}, line {reader.line_num}"
                if len(values) > len(head):
                    raise ValueError(f"{place}: expected {len(head)} values, found {len(values)}")
                _check_numbers(row, place)
                rows.append(row)
            return rows
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error


def _check_numbers(row: dict[str, str], place: str) -> None:
    for name, value in row.items():
        try:
            int(value) if name == "step" else float(value or 0)
        except ValueError:
            raise ValueError(f"{place}: expected a number as {name}, found {value!r:.80}") from None


class Curve:
    """Appends to a run's curve.

    Args:
        folder: of the run, which is there.
        step: what the run goes on from; later rows of the file will be written again and are dropped.
        tensorboard: whether to write for TensorBoard too.

    Raises:
        ValueError: curve.csv is there, but is none; see :func:`read_curve`.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.path = folder / "curve.csv"
        self._board = _summary_writer(folder / "tensorboard", step) if tensorboard else None
        rows = [row for row in read_curve(self.path) if int(row["step"]) <= step] if self.path.exists() else []
        with replacing(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, row: dict[str, Any]) -> None:
        """One row; its keys are some of ``COLUMNS``."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        if self._board is not None:
            for key in ("loss", "lr", "val_rmse"):
                if key in row:
                    self._board.add_scalar(key, row[key], row["step"])

    def show(self, pictures: dict[str, Tensor], step: int) -> None:
        """Pictures (B, 3, H, W) in [0, 1] and depth maps (B, 1, H, W) in the range of the one named "truth"."""
        if self._board is None:
            return
        known = pictures["truth"][torch.isfinite(pictures["truth"])]
        lo, hi = known.min(), known.max()
        for name, images in pictures.items():
            images = images[:_PICTURES]
            self._board.add_images(
                name, images if images.shape[1] == 3 else ((images - lo) / (hi - lo)).clamp(0, 1).nan_to_num(), step
            )

    def close(self) -> None:
        """Writes what is still on its way."""
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=step)
