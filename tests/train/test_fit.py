from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from coverslip.base.errors import CoverslipError
from coverslip.base.study import FitSettings
from coverslip.train import FitResult, fit
from coverslip.train.checkpoint import load

from .conftest import Batch, Line, WithTeacher

Loss = Callable[[nn.Module], torch.Tensor]


def state_of(objective: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss(settings: FitSettings, tune_loss: Loss) -> None:
    objective = WithTeacher()
    result = fit(objective, Line(), settings, evaluate=tune_loss)
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    assert result.epochs == 5
    assert result.steps == 35


def interrupted_at(step: int, objective: WithTeacher) -> None:
    """Presses Ctrl-C after that many optimiser steps, counted from the start of the run."""
    after_step = objective.after_step

    def pressing(progress: float) -> None:
        after_step(progress)
        if int(objective.fed) == step:
            signal.raise_signal(signal.SIGINT)

    objective.after_step = pressing  # type: ignore[method-assign]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("stops", [[1], [7], [10], [4, 11]])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, settings: FitSettings, tune_loss: Loss, stops: list[int], accumulate: int
) -> None:
    settings = settings.model_copy(update={"accumulate": accumulate})
    whole = WithTeacher()
    expected = fit(whole, Line(), settings, evaluate=tune_loss)

    path = tmp_path / "checkpoint.safetensors"
    for step in stops:
        objective = WithTeacher()
        interrupted_at(step, objective)
        with pytest.raises(KeyboardInterrupt):
            fit(objective, Line(), settings, evaluate=tune_loss, checkpoint_path=path)
        # What the next process draws in between does not matter.
        torch.randn(5)
    resumed, batches = WithTeacher(), Line()
    result = fit(resumed, batches, settings, evaluate=tune_loss, checkpoint_path=path)
    assert result == expected
    assert equal(state_of(resumed), state_of(whole))
    assert (0, 0) not in batches.asked, "it began again instead of going on"


def test_ctrl_c_during_the_last_evaluation_is_not_lost(tmp_path: Path, settings: FitSettings) -> None:
    path = tmp_path / "checkpoint.safetensors"
    epochs: list[int] = []

    def evaluate(network: nn.Module) -> torch.Tensor:
        epochs.append(1)
        if len(epochs) == settings.epochs:
            signal.raise_signal(signal.SIGINT)
        return torch.tensor([1.0 / len(epochs)])

    with pytest.raises(KeyboardInterrupt):
        fit(WithTeacher(), Line(), settings, evaluate=evaluate, checkpoint_path=path)
    batches = Line()
    assert fit(WithTeacher(), batches, settings, evaluate=evaluate, checkpoint_path=path).epochs == settings.epochs
    assert not batches.asked


def test_a_checkpoint_of_another_run_is_not_gone_on_with(tmp_path: Path, settings: FitSettings) -> None:
    path = tmp_path / "checkpoint.safetensors"
    objective = WithTeacher()
    interrupted_at(3, objective)
    with pytest.raises(KeyboardInterrupt):
        fit(objective, Line(), settings, checkpoint_path=path, key="these slides")
    batches = Line()
    fit(WithTeacher(), batches, settings, checkpoint_path=path, key="other slides")
    assert batches.asked[0] == (0, 0)


def test_a_checkpoint_is_written_now_and_then(tmp_path: Path, settings: FitSettings) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fit(WithTeacher(), Line(), settings, checkpoint_path=path, checkpoint_every_s=0.0)
    found = load(path, key="")
    assert found is not None
    assert found.counters.step == 35


def test_the_same_seed_gives_the_same_weights(settings: FitSettings) -> None:
    runs = []
    for seed in (1, 1, 2):
        objective = WithTeacher()
        fit(objective, Line(), settings.model_copy(update={"seed": seed}))
        runs.append(state_of(objective))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2]), "dropout does not depend on the seed"


def test_the_callers_random_state_is_left_alone(settings: FitSettings) -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    objective, state = WithTeacher(), None
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fit(objective, Line(2), settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.randn(3), expected)


def test_accumulated_batches_move_the_weights_as_one(settings: FitSettings) -> None:
    class TwoHalves(Line):
        def batch(self, epoch: int, index: int) -> Batch:
            whole = super().batch(epoch, index // 2)
            half = slice(0, 4) if index % 2 == 0 else slice(4, 8)
            return Batch(whole.x[half], whole.y[half])

    plain, halves = WithTeacher(), WithTeacher()
    for objective in (plain, halves):
        objective.student[2].p = 0.0
    fit(plain, Line(3), settings)
    fit(halves, TwoHalves(6), settings.model_copy(update={"accumulate": 2}))
    for a, b in zip(plain.student.parameters(), halves.student.parameters()):
        assert torch.allclose(a, b, atol=1e-6)


def test_after_step_runs_once_an_optimiser_step_with_progress_from_0_to_1(settings: FitSettings) -> None:
    objective = WithTeacher()
    fit(objective, Line(7), settings.model_copy(update={"accumulate": 3}))
    assert len(objective.steps) == 15
    assert objective.steps[0] == 0.0
    assert objective.steps[-1] == 1.0
    assert objective.steps == sorted(objective.steps)


def test_gradients_are_clipped_after_they_are_there(settings: FitSettings) -> None:
    norms: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))

    class Clipped(WithTeacher):
        def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
            return Watched(self.student.parameters(), lr=1.0)

    fit(Clipped(), Line(2), settings.model_copy(update={"clip": 0.01}))
    assert norms
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_the_best_weights_are_put_back(settings: FitSettings) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.2])

    def evaluate(network: nn.Module) -> torch.Tensor:
        seen.append(state_of(network))
        return torch.tensor([next(losses)])

    objective = WithTeacher()
    result = fit(objective, Line(), settings, evaluate=evaluate)
    assert (result.best_epoch, result.best_loss) == (2, 1.0)
    assert equal(state_of(objective.student), seen[1])
    assert not equal(seen[1], seen[4])


def test_training_stops_when_the_tuning_loss_gets_no_better(settings: FitSettings) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.2])
    settings = settings.model_copy(update={"patience": 2})
    assert fit(WithTeacher(), Line(), settings, evaluate=lambda network: torch.tensor([next(losses)])).epochs == 4


def test_evaluation_is_in_eval_mode_without_gradients_and_modes_come_back(settings: FitSettings) -> None:
    objective = WithTeacher()
    objective.student[0].eval()  # frozen on purpose by someone
    watched: list[tuple[bool, bool]] = []

    def evaluate(network: nn.Module) -> torch.Tensor:
        watched.append((any(part.training for part in network.modules()), torch.is_inference_mode_enabled()))
        return torch.ones(3)

    fit(objective, Line(), settings.model_copy(update={"patience": 9}), evaluate=evaluate)
    assert watched == [(False, True)] * 5
    assert objective.modes == [True] * 35


def test_a_loss_that_is_no_number_names_the_batch(settings: FitSettings) -> None:
    with pytest.raises(CoverslipError, match=r"in epoch 2, on batch 3 of 1") as caught:
        fit(WithTeacher(), Line(bad=(1, 3)), settings)
    assert caught.value.code == "loss_not_finite"


def test_a_tuning_loss_that_is_no_number_is_told(settings: FitSettings) -> None:
    with pytest.raises(CoverslipError, match="tuning loss became nan in epoch 1"):
        fit(WithTeacher(), Line(), settings, evaluate=lambda network: torch.tensor([1.0, torch.nan]))


def test_each_epoch_tells_how_it_went(settings: FitSettings, tune_loss: Loss) -> None:
    rows: list[dict[str, float]] = []
    result = fit(WithTeacher(), Line(), settings, evaluate=tune_loss, on_epoch=rows.append)
    assert rows == result.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert all({"loss", "tune_loss", "lr"} <= row.keys() for row in rows)


def test_bfloat16_trains_too(settings: FitSettings) -> None:
    result: FitResult = fit(WithTeacher(), Line(), settings.model_copy(update={"precision": "bf16"}))
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_no_epoch_of_a_warm_up_is_kept_or_counts_as_one_without_progress(settings: FitSettings) -> None:
    class Later(WithTeacher):
        begins = 0.5

    epochs = iter(range(100))

    def ever_worse(network: nn.Module) -> torch.Tensor:
        return torch.full((20,), 1.0 + next(epochs))

    settings = settings.model_copy(update={"patience": 1})
    assert fit(WithTeacher(), Line(), settings, evaluate=ever_worse).best_epoch == 1
    result = fit(Later(), Line(), settings, evaluate=ever_worse)
    # Of 35 steps the 18th is the first in the second half; it lies in the third epoch.
    assert (result.best_epoch, result.epochs) == (3, 4)
