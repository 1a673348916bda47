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
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from d2a2_core.data.sampling import TrainingBatches, input_keys
from d2a2_core.network import build_model
from d2a2_core.network.warm_start import adapted_state
from d2a2_core.runtime import has_bfloat16, resolve_device
from d2a2_core.training.config import TrainConfig, make_config, save_config
from d2a2_core.training.curve import Curve
from d2a2_core.training.losses import measured_loss, reconstruction_loss, relative_loss
from d2a2_core.training.provenance import provenance
from d2a2_core.training.sources import training_source, validation_source
from d2a2_core.training.teacher import Teacher
from d2a2_core.training.validation import validate
from d2a2_core.weights import load_weights, resolve_weights, save_weights


class TrainingError(RuntimeError):
    """Training cannot go on; checkpoints on disk are untouched and the message says what to do."""


def train(config: TrainConfig, folder: str | Path, quiet: bool = False) -> Path:
    """Trains, or goes on with the run in ``folder``; returns the path of its best weights.

    Raises:
        TrainingError: the folder holds a run with other settings, the loss is not finite, or nothing can be saved.
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
        self.averaged = {k: v.detach().clone() for k, v in self.model.state_dict().items()} if config.ema else None
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for name, p in named if (".deform.predict." in name) == offsets], "factor": factor}
            for offsets, factor in ((False, 1.0), (True, config.offset_lr))
        ]
        self.optimizer = torch.optim.Adam([g for g in groups if g["params"]], lr=config.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.step, self.best = 0, math.inf
        self.losses: list = []  # since the last row of the curve; part of the state, so that a resumed curve is the same
        self.validation: list[dict[str, Tensor]] = []

    def run(self) -> Path:
        """The loop itself."""
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
        started = time.monotonic()
        progress = tqdm(
            total=self.config.steps, initial=self.step, unit="step", disable=self.quiet or not sys.stderr.isatty()
        )
        waited, before = 0.0, time.monotonic()
        for batch in self._batches():
            waited += time.monotonic() - before
            self.losses.append(self._train_step(model, batch))
            progress.update()
            last = self.step == self.config.steps
            save = self._due(self.config.save_every) or last
            due = self._due(self.config.validate_every) or last
            if save or due or self._due(self.config.log_every):
                self._check_loss()
            if due or self._due(self.config.log_every):
                row = {"step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
                row |= {"loss": float(np.mean(self.losses)), "seconds": round(time.monotonic() - started, 2)}
                row["waited"] = round(waited, 2)
                self.losses = []
                if curve is not None:
                    if due:
                        row |= self._validate(curve)
                    curve.add(row)
                    self._tell(row, progress)
            if self.main and save:
                self._save()
            before = time.monotonic()
        progress.close()

    def _check_loss(self) -> None:
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

    # -- one step ------------------------------------------------------------------------------------------------

    def _train_step(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * group["factor"] * learning_rate_factor(self.step, self.config)
        model.train()
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        if self.teacher is not None:
            with self._autocast():
                batch["hr"] = self.teacher.target(batch, self.step)
        with self._autocast():
            prediction = model(*(batch[key] for key in input_keys(self.model)))
        loss = self._loss(prediction.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.config.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self._average()
        return loss.detach()

    def _loss(self, prediction: Tensor, batch: dict[str, Tensor]) -> Tensor:
        weight = self.config.l2_weight
        if not self.config.relative_loss:
            return reconstruction_loss(prediction, batch["hr"], weight)
        plain = F.interpolate(batch["lr"], size=batch["hr"].shape[-2:], mode="bicubic", align_corners=False)
        loss = relative_loss(prediction, plain, batch["hr"], weight)
        if share := self.config.measured_share:
            loss = (1 - share) * loss + share * measured_loss(prediction, plain, batch["hr"], batch["trust"], weight)
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))  # follows quickly at first
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.averaged[key].lerp_(value, 1 - decay)
            else:
                self.averaged[key].copy_(value)

    def _autocast(self) -> torch.autocast | nullcontext:
        precision = self.config.precision
        if precision == "auto":
            precision = "bf16" if has_bfloat16(self.device) else "float32"
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    # -- data ----------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        config = self.config
        data = TrainingBatches(
            self.scenes,
            config.scales,
            config.crop,
            config.batch_size // self.world,
            config.seed,
            self.rank,
            self.world,
            range_jitter=config.range_jitter,
            misalign=config.misalign,
            sensor=config.sensor,
            soft=config.soft,
            captured=config.captured,
        )
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
        """The (averaged) weights on held-out batches, which :func:`.validation.validate` explains; keeps the best."""
        config = self.config
        if not self.validation:
            size = min(config.batch_size, 8)
            data = TrainingBatches(
                self.held_out, config.scales, config.crop, size, config.seed + 1, sensor=config.sensor, soft=config.soft
            )
            self.validation = [data[i] for i in range(config.validate_batches)]
        trained = {k: v.clone() for k, v in self.model.state_dict().items()} if self.averaged else None
        if self.averaged:
            self.model.load_state_dict(self.averaged)
        result, pictures = validate(self.model, self.validation, self.device, self._autocast())
        curve.show(pictures, self.step)
        if trained is not None:
            self.model.load_state_dict(trained)
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
        if state.exists():
            saved = make_config("paper", self.folder / "config.yaml")
            free = ("steps", "device", "workers", "threads", "log_every", "save_every", "tensorboard")
            changed = [
                k for k, v in vars(saved).items() if k not in free and v != getattr(self.config, k)
            ]  # the length of a fixed-rate run may change; a cosine's may not
            if self.config.schedule == "cosine" and saved.steps != self.config.steps:
                changed.append("steps")
            if changed:
                raise TrainingError(
                    f"{self.folder} holds a run with other settings ({', '.join(changed)}); "
                    "go on with the same ones, or name a new folder"
                )
            self._restore(torch.load(state, map_location=self.device, weights_only=True))
        if self.world > 1:
            dist.barrier()  # the others have read what the first is about to write
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        save_config(self.config, self.folder / "config.yaml")
        if not state.exists():
            (self.folder / "provenance.json").write_text(json.dumps(provenance(self.config), indent=1))

    def _restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.losses = state["step"], state["best"], state["losses"]
        if self.averaged is not None:
            self.averaged = state["averaged"]
        torch.set_rng_state(state["rng"].cpu())

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "best": self.best,
            "losses": [float(loss) for loss in self.losses],
            "rng": torch.get_rng_state(),
        }

        def write() -> None:
            self._save_weights("last")
            partial = self.folder / "state.pt.partial"
            torch.save(state, partial)
            partial.replace(self.folder / "state.pt")

        self._guarded(write)

    def _save_weights(self, name: str) -> None:
        model = build_model(self.config.model)
        model.load_state_dict(self.averaged or self.model.state_dict())
        card = json.loads((self.folder / "provenance.json").read_text()) | {"step": self.step}
        save_weights(self.folder / f"{name}.safetensors", model, card)

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
