"""The one training loop. MIL, self-supervised and vision-language methods differ in their `Objective`, not here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from coverslip.base.errors import CoverslipError
from coverslip.base.progress import SILENT, Progress
from coverslip.base.random import stream_seed
from coverslip.base.study import FitSettings
from coverslip.train import checkpoint
from coverslip.train.checkpoint import Counters
from coverslip.train.interrupt import deferred_interrupt
from coverslip.train.modes import evaluating
from coverslip.train.objective import Objective
from coverslip.train.schedules import rate_factor
from coverslip.train.selection import Selection


class Batches(Protocol):
    """The training batches of any epoch, the same each time they are asked for; so a run resumes inside an epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def batch(self, epoch: int, index: int) -> Any:
        """One batch, a function of its arguments alone. It has `.to(device)`."""
        ...

    def describe(self, epoch: int, index: int) -> str:
        """What is in that batch, for an error message."""
        ...

    def shard(self, rank: int, world: int) -> Batches:
        """The share of one of `world` processes that train together; every share has as many batches."""
        ...


@dataclass
class FitResult:
    """How training went; the objective's network holds the weights of `best_epoch` (from 1), whose tuning loss is
    `best_loss`; without tuning, the last."""

    epochs: int
    best_epoch: int | None
    best_loss: float | None
    steps: int
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch: epoch, loss, tune_loss (where there is one), lr."""


def fit(
    objective: Objective,
    batches: Batches,
    settings: FitSettings,
    *,
    evaluate: Callable[[nn.Module], Tensor] | None = None,
    checkpoint_path: Path | None = None,
    key: str = "",
    checkpoint_every_s: float = 30.0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    progress: Progress = SILENT,
    name: str = "fit",
    fabric: Fabric | None = None,
) -> FitResult:
    """Trains `objective` in place and says how it went.

    `evaluate` gets the network in eval mode under inference_mode and returns one loss for each tuning unit (patient);
    `Selection` says which epoch's weights are put back at the end, and when training stops early. With
    `checkpoint_path` a run that was stopped goes on bit for bit where it was, if `key` (a digest of data and settings)
    is the same. The caller's random state is left as it was.

    Raises:
        CoverslipError: the loss is not a finite number; names the batch.
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    fabric = fabric or make_fabric(settings)
    run = _Run(objective, batches, settings, fabric, evaluate)
    with torch.random.fork_rng(devices=_cuda_devices(fabric)), deferred_interrupt() as interrupted:
        run.restore(checkpoint_path, key)
        saved_at = time.monotonic()
        with progress.stage(name, settings.epochs, unit="epoch") as stage:
            stage.advance(run.at.epoch)
            while not run.finished:
                for _ in run.epoch():
                    if interrupted():
                        break
                    if time.monotonic() - saved_at > checkpoint_every_s:
                        run.save(checkpoint_path, key)
                        saved_at = time.monotonic()
                else:
                    row = run.end_epoch()
                    stage.advance(note=_note(row))
                    if on_epoch is not None:
                        on_epoch(row)
                if interrupted():
                    run.save(checkpoint_path, key)
                    raise KeyboardInterrupt
        return run.result()


def make_fabric(settings: FitSettings) -> Fabric:
    """Fabric for these settings: `auto` takes a GPU where there is one, and bf16 where that GPU has it."""
    accelerator, _, index = settings.device.partition(":")
    devices: int | list[int] = [int(index)] if index else settings.devices
    # On a CPU one process with torch's threads is what anyone wants, unless more are asked for.
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not torch.cuda.is_available():
        # An optimiser asks for an accelerator at every step. Lightning makes that a question to NVML, which costs half
        # a millisecond where there is none; the other way of asking could only harm a process that has a GPU.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    bf16 = accelerator == "cuda" and torch.cuda.is_bf16_supported()
    precision = {"auto": "bf16" if bf16 else "fp32"}.get(settings.precision, settings.precision)
    plain = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    strategy = "ddp" if settings.devices > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=plain, strategy=strategy)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


class _Run:
    """The state of one training run and what may be done to it."""

    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        settings: FitSettings,
        fabric: Fabric,
        evaluate: Callable[[nn.Module], Tensor] | None,
    ) -> None:
        if fabric.world_size > 1:
            batches = batches.shard(fabric.global_rank, fabric.world_size)
        self.objective, self.batches, self.settings, self.fabric = objective, batches, settings, fabric
        self.evaluate = evaluate
        optimiser = objective.optimiser(settings)
        self.peaks = [float(group["lr"]) for group in optimiser.param_groups]
        self.step_module, self.optimiser = fabric.setup(_Step(objective), optimiser)
        self.at = Counters()
        self.selection = Selection()
        self.kept: dict[str, Tensor] | None = None
        self.per_epoch = -(-len(batches) // settings.accumulate)
        self.total = self.per_epoch * settings.epochs

    @property
    def finished(self) -> bool:
        return self.at.epoch >= self.settings.epochs or self.selection.stale(self.at.epoch - 1, self.settings.patience)

    def epoch(self) -> Iterator[None]:
        """Does what is left of this epoch; yields after each optimiser step, when the state is whole."""
        self.objective.train()
        every = self.settings.accumulate
        while self.at.batch < len(self.batches):
            window = range(self.at.batch, min(self.at.batch + every, len(self.batches)))
            self._optimiser_step(window)
            self.at.batch = window.stop
            self.at.step += 1
            yield

    def _optimiser_step(self, window: range) -> None:
        _seed(self.fabric.device, stream_seed(self.settings.seed, "step", self.at.step, self.fabric.global_rank))
        progress = self._progress(self.at.step)
        factor = rate_factor(self.at.step, self.total, warmup=self.settings.warmup, schedule=self.settings.schedule)
        for group, peak in zip(self.optimiser.param_groups, self.peaks):
            group["lr"] = peak * factor
        for index in window:
            more = index + 1 < window.stop
            batch = self.batches.batch(self.at.epoch, index).to(self.fabric.device)
            with self.fabric.no_backward_sync(self.step_module, enabled=more):
                loss = self.step_module(_Packet(batch, progress))
                value = float(loss.detach())
                self._require_finite(value, index)
                self.fabric.backward(loss / len(window))
            self.at.losses.append(value)
        if self.settings.clip is not None:
            # After the backward pass: before it there is nothing to clip.
            self.fabric.clip_gradients(
                self.step_module, self.optimiser, max_norm=self.settings.clip, error_if_nonfinite=False
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.after_step(progress)

    def _progress(self, step: int) -> float:
        """0 at the first step, 1 at the last."""
        return step / max(1, self.total - 1)

    def _require_finite(self, value: float, index: int) -> None:
        if not math.isfinite(value):
            raise CoverslipError(
                f"The training loss became {value} in epoch {self.at.epoch + 1}, on "
                f"{self.batches.describe(self.at.epoch, index)}.",
                fix='Check these features for extreme values, lower fit.lr, or set fit.precision = "fp32".',
                code="loss_not_finite",
            )

    def end_epoch(self) -> dict[str, float]:
        """Evaluates, keeps the weights where they are worth it, moves to the next epoch; returns the epoch's row."""
        at = self.at
        row = {"epoch": float(at.epoch + 1), "loss": sum(at.losses) / max(1, len(at.losses))}
        row["lr"] = float(self.optimiser.param_groups[0]["lr"])
        if self.evaluate is not None:
            network = self.objective.network
            with evaluating(network), self.fabric.autocast():
                losses = self.evaluate(network).double().cpu()
            row["tune_loss"] = float(losses.mean())
            if not math.isfinite(row["tune_loss"]):
                raise CoverslipError(
                    f"The tuning loss became {row['tune_loss']} in epoch {at.epoch + 1}.",
                    fix="Check the tuning slides' features for extreme values, or lower fit.lr.",
                    code="loss_not_finite",
                )
            if self._progress(at.step - 1) >= self.objective.begins and self.selection.keeps(at.epoch, losses.clone()):
                self.kept = checkpoint.clone(network.state_dict())
        at.history.append(row)
        at.epoch, at.batch, at.losses = at.epoch + 1, 0, []
        return row

    def result(self) -> FitResult:
        at = self.at
        if self.kept is not None:
            self.objective.network.load_state_dict(self.kept)
        self.objective.eval()
        kept = self.selection.kept
        loss = None if kept is None else at.history[kept]["tune_loss"]
        return FitResult(at.epoch, None if kept is None else kept + 1, loss, at.step, at.history)

    def save(self, path: Path | None, key: str) -> None:
        if path is None or not self.fabric.is_global_zero:
            return
        checkpoint.save(
            path,
            key=key,
            counters=self.at,
            objective=self.objective.state_dict(),
            kept=self.kept,
            selection=self.selection,
            optimiser=self.optimiser.state_dict(),
        )

    def restore(self, path: Path | None, key: str) -> None:
        found = None if path is None else checkpoint.load(path, key=key)
        if found is None:
            return
        self.at, self.kept, self.selection = found.counters, found.kept, found.selection
        self.objective.load_state_dict(found.objective)
        self.optimiser.load_state_dict(found.optimiser)


class _Packet:
    """A batch on its way through Fabric, which would otherwise look into it and cast what it finds."""

    def __init__(self, batch: Any, progress: float) -> None:
        self.batch, self.progress = batch, progress


class _Step(nn.Module):
    """The objective as Fabric and DDP want it: a module whose forward gives the loss."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, packet: _Packet) -> Tensor:
        return self.objective(packet.batch, packet.progress).loss


def _seed(device: torch.device, seed: int) -> None:
    # torch.manual_seed would also queue a call for every kind of device that is not there, at each step.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _cuda_devices(fabric: Fabric) -> list[int]:
    return [fabric.device.index or 0] if fabric.device.type == "cuda" else []


def _note(row: dict[str, float]) -> str:
    tune = f", tune {row['tune_loss']:.3f}" if "tune_loss" in row else ""
    return f"loss {row['loss']:.3f}{tune}"
