"""The training loop. A run lives in one folder and can be killed at any moment:

config.yaml        every setting, resolved          curve.csv       step, loss, learning rate, validation
provenance.json    command, revision, versions      state.pt        everything needed to go on, bit for bit on a CPU
last.safetensors   weights after the newest save    best.safetensors  weights with the lowest validation RMSE
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from d2a2_core.data.sampling import TrainingBatches, input_keys
from d2a2_core.documents import read_json
from d2a2_core.files import check_outputs, replacing
from d2a2_core.network import build_model
from d2a2_core.network.warm_start import adapted_state
from d2a2_core.runtime import has_bfloat16, resolve_device
from d2a2_core.training.config import TrainConfig, make_config, save_config
from d2a2_core.training.curve import Curve
from d2a2_core.training.losses import training_loss
from d2a2_core.training.provenance import is_run, provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.training.teacher import Teacher
from d2a2_core.training.validation import validate
from d2a2_core.weights import check_archive, load_weights, resolve_weights, save_weights

_FILES = ("provenance.json", "config.yaml", "curve.csv", "state.pt", "last.safetensors", "best.safetensors")


class TrainingError(RuntimeError):
    """Training cannot go on; checkpoints on disk are untouched and the message says what to do."""


def train(config: TrainConfig, folder: str | Path, quiet: bool = False) -> Path:
    """Trains, or goes on with the run in ``folder``; returns the path of its best weights.

    Raises:
        TrainingError: the folder holds a run with other settings, the loss is not finite, or nothing can be saved.
        FileExistsError: the folder holds files of a run's names, but no run.
    """
    return Trainer(config, Path(folder), quiet).run()


class Trainer:
    """One training run. Under torchrun each process builds one; the first of them writes and prints."""

    def __init__(self, config: TrainConfig, folder: Path, quiet: bool = False) -> None:
        self.config, self.folder = config, folder
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.main = self.rank == 0
        self.quiet = quiet or not self.main
        if config.batch_size % self.world:
            raise TrainingError(f"batch_size ({config.batch_size}) must be a multiple of the {self.world} processes")
        self.scenes, self.held_out = training_source(config), validation_source(config)
        self.device = pick_device(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.model = self._initial_model().to(self.device, memory_format=torch.channels_last)
        self.teacher = Teacher(config, self.device) if config.teacher else None
        self.averaged = None
        if config.ema:
            self.averaged = AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
            self.averaged.update_parameters(self.model)  # torch's first update is a copy; ours start at step 1
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for name, p in named if (".deform.predict." in name) == offsets], "factor": factor}
            for offsets, factor in ((False, 1.0), (True, config.offset_lr))
        ]
        self.optimizer = torch.optim.Adam([g for g in groups if g["params"]], lr=config.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.autocast = autocast(config.precision, self.device)
        self.step, self.best = 0, math.inf
        self.losses: list = []  # since the last row of the curve; part of the state, so that a resumed curve is the same
        self.validation: list[dict[str, Tensor]] = []

    def run(self) -> Path:
        """Opens the folder, trains the steps that are left, and returns the path of the best weights."""
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self._open_folder()
        model = nn.parallel.DistributedDataParallel(self.model) if self.world > 1 else self.model
        curve = Curve(self.folder, self.step, self.config.tensorboard) if self.main else None
        try:
            self._loop(model, curve)
        finally:
            if curve is not None:
                curve.close()
        if self.world > 1:
            dist.barrier()
            dist.destroy_process_group()
        best = self.folder / "best.safetensors"
        return best if best.exists() else self.folder / "last.safetensors"

    def _loop(self, model: nn.Module, curve: Curve | None) -> None:
        config = self.config
        total, hidden = config.steps, self.quiet or not sys.stderr.isatty()
        progress = tqdm(total=total, initial=self.step, unit="step", disable=hidden)
        started = before = time.monotonic()
        waited = 0.0
        for batch in self._batches():
            waited += time.monotonic() - before

            # The learning rates of this step.
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * group["factor"] * learning_rate_factor(self.step, config)

            # Forward.
            model.train()
            batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            with self.autocast:
                if self.teacher is not None:
                    batch["hr"] = self.teacher.target(batch, self.step)
                prediction = model(*(batch[key] for key in input_keys(self.model)))
            loss = training_loss(prediction.float(), batch, config)

            # Backward and update.
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            if config.clip:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step += 1
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            self.losses.append(loss.detach())
            progress.update()

            # What is due after it: the check before anything is written, then a row of the curve, then a checkpoint.
            intervals = (config.log_every, config.validate_every, config.save_every)
            log, validation, save = (self.step % every == 0 or self.step == config.steps for every in intervals)
            if log or validation or save:
                self._check_finite()
            if log or validation:
                row = {"step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
                row |= {"loss": float(np.mean(self.losses)), "seconds": round(time.monotonic() - started, 2)}
                row["waited"] = round(waited, 2)
                self.losses = []
                if curve is not None:
                    if validation:
                        row |= self._validate(curve)
                    curve.add(row)
                    self._tell(row, progress)
            if save and self.main:
                self._save()
            before = time.monotonic()
        progress.close()

    def _check_finite(self) -> None:
        """Stops before a loss, or a weight after a bad gradient, that is not finite gets into a checkpoint."""
        self.losses = [float(loss) for loss in self.losses]
        healthy = np.isfinite(self.losses).all() and all(bool(p.isfinite().all()) for p in self.model.parameters())
        if self.world > 1:  # the other processes' losses reach these weights too
            flag = torch.tensor(float(healthy), device=self.device)
            dist.all_reduce(flag, dist.ReduceOp.MIN)
            healthy = bool(flag)
        if not healthy:
            raise TrainingError(
                f"the loss or a weight is not finite at step {self.step}; the state of an earlier step is in "
                f"{self.folder / 'state.pt'}. Try a lower lr, clip=1.0 or precision=float32 in a new folder"
            )

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _count: Tensor) -> None:
        """Moves averaged tensors towards the current ones, quickly at first; whole numbers are copied."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    # -- data ----------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        config = self.config
        data = TrainingBatches(
            self.scenes, config.scales, config.crop, config.batch_size // self.world, config.seed, self.rank, self.world,
            range_jitter=config.range_jitter, misalign=config.misalign, sensor=config.sensor, soft=config.soft,
            captured=config.captured,
        )  # fmt: skip
        loader = DataLoader(
            data,
            batch_size=None,
            sampler=range(self.step, config.steps),  # a batch is its number, so resuming is starting later
            num_workers=config.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if config.workers else None,
            multiprocessing_context="spawn" if config.workers else None,
        )
        try:
            yield from loader
        except GeneratorExit:
            raise
        except Exception as error:
            raise TrainingError(
                f"a training sample of step {self.step + 1} cannot be used: {error}. Repair or remove it and start the same "
                "command again; checkpoints are intact"
            ) from error

    def _validate(self, curve: Curve) -> dict[str, float]:
        """Scores the (averaged) weights on held-out batches, as :func:`.validation.validate` explains, and keeps the best."""
        config = self.config
        if not self.validation:
            size = min(config.batch_size, 8)
            data = TrainingBatches(
                self.held_out, config.scales, config.crop, size, config.seed + 1, sensor=config.sensor, soft=config.soft
            )
            self.validation = [data[i] for i in range(config.validate_batches)]
        result, pictures = validate(self._averaged_model(), self.validation, self.device, self.autocast)
        curve.show(pictures, self.step)
        if result["val_rmse"] < self.best:
            self.best = result["val_rmse"]
            self._guarded(lambda: self._save_weights("best"))
        return result

    # -- the run's folder ----------------------------------------------------------------------------------------

    def _initial_model(self) -> nn.Module:
        model = build_model(self.config.model)
        if self.config.init:
            start = load_weights(resolve_weights(self.config.init))
            try:
                model.load_state_dict(adapted_state(start, model))
            except (RuntimeError, ValueError) as error:
                raise TrainingError(f"init weights {self.config.init} do not fit the model: {error}") from error
        return model

    def _open_folder(self) -> None:
        state = self.folder / "state.pt"
        check_outputs((self.folder / name for name in _FILES), lambda path: is_run(path.parent))
        if state.exists():
            saved = make_config("paper", self.folder / "config.yaml")
            free = ("steps", "device", "workers", "threads", "log_every", "save_every", "tensorboard")
            changed = [k for k, v in vars(saved).items() if k not in free and v != getattr(self.config, k)]
            # The length of a fixed-rate run may change; a cosine's may not.
            if self.config.schedule == "cosine" and saved.steps != self.config.steps:
                changed.append("steps")
            if changed:
                raise TrainingError(
                    f"{self.folder} holds a run with other settings ({', '.join(changed)}); "
                    "go on with the same ones, or name a new folder"
                )
            self._restore(state)
        if self.world > 1:
            dist.barrier()  # the others have read what the first is about to write
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not state.exists():
            # First, since it tells a run's folder from others.
            with replacing(self.folder / "provenance.json") as partial:
                partial.write_text(json.dumps(provenance(self.config), indent=1))
        save_config(self.config, self.folder / "config.yaml")

    def _restore(self, file: Path) -> None:
        try:
            check_archive(file)
            state = torch.load(file, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step, self.best = int(state["step"]), float(state["best"])
            self.losses = [float(loss) for loss in state["losses"]]
            if self.step < 0:
                raise ValueError(f"step {self.step}")
            if self.averaged is not None:
                averaged = state["averaged"]
                if "n_averaged" not in averaged:
                    # Version 0.1.0 kept the bare weights.
                    averaged = {f"module.{k}": v for k, v in averaged.items()} | {"n_averaged": torch.tensor(1)}
                self.averaged.load_state_dict(averaged)
            torch.set_rng_state(state["rng"].cpu())
        except Exception as error:  # torch's loaders raise a different type for each kind of damage
            raise TrainingError(
                f"{file} is damaged or was written by another version of this package ({type(error).__name__}). Go on with that "
                f"version, or start in a new folder from the weights of this run: init={self.folder / 'last.safetensors'}"
            ) from error

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "step": self.step,
            "best": self.best,
            "losses": [float(loss) for loss in self.losses],
            "rng": torch.get_rng_state(),
        }

        def write() -> None:
            self._save_weights("last")
            with replacing(self.folder / "state.pt") as partial:
                torch.save(state, partial)

        self._guarded(write)

    def _save_weights(self, name: str) -> None:
        card = read_json(self.folder / "provenance.json") | {"step": self.step}
        save_weights(self.folder / f"{name}.safetensors", self._averaged_model(), card)

    def _averaged_model(self) -> nn.Module:
        """The network that is validated and saved as weights: the averaged one, where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    def _guarded(self, write) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise TrainingError(
                f"cannot save to {self.folder} at step {self.step} ({error}); the previous checkpoint is intact. "
                "Free some disk space and start the same command again"
            ) from error

    def _tell(self, row: dict, progress: tqdm) -> None:
        if not progress.disable:
            progress.set_postfix_str(f"loss {row['loss']:.4g}")
        elif not self.quiet:
            print("  ".join(f"{k} {v:.5g}" for k, v in row.items()), flush=True)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """What the learning rate of 0-based ``step`` is multiplied with: linear warm-up, then fixed or half a cosine."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "fixed":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass in a setting's precision; "auto" is bfloat16 where the hardware supports it."""
    if precision == "auto":
        precision = "bf16" if has_bfloat16(device) else "float32"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()


def pick_device(name: str) -> torch.device:
    """The device a run was configured for; of several GPUs the one that torchrun gave this process.

    Raises:
        ValueError: see :func:`d2a2_core.runtime.resolve_device`.
    """
    device = resolve_device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return device
