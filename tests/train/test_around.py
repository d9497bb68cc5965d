"""Sharpness-aware steps and averaged weights around any objective."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor, nn

from coverslip.base.study import FitSettings
from coverslip.train import Objective, Remembered, StepOutput, fit
from coverslip.train.averaging import Averaged, MovingAverage, Soup
from coverslip.train.sharpness import SharpnessAware

from .conftest import Batch, Line, WithTeacher


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Quadratic(Objective):
    """Half of sum(curvature w^2) over one vector w: gradients are known by hand."""

    def __init__(self, curvature: list[float]) -> None:
        super().__init__()
        self.line = nn.Linear(len(curvature), 1, bias=False)
        self.idle = nn.Parameter(torch.ones(2))
        self.register_buffer("curvature", torch.tensor(curvature))
        self.calls = 0

    @property
    def network(self) -> nn.Module:
        return self.line

    def forward(self, batch: Any, progress: float) -> StepOutput:
        self.calls += 1
        return StepOutput((self.curvature * self.line.weight.square()).sum() / 2)


@examples(max_examples=30, deadline=None)
@given(
    w=st.lists(st.floats(-3, 3).filter(lambda v: abs(v) > 0.05), min_size=1, max_size=4),
    rho=st.floats(0.01, 1.0),
)
def test_the_gradient_is_that_of_the_worst_place_nearby(w: list[float], rho: float) -> None:
    curvature = [1.0, 10.0, 0.5, 3.0][: len(w)]
    inner = Quadratic(curvature)
    inner.line.weight.data.copy_(torch.tensor([w]))
    output = SharpnessAware(inner, rho)(None, 0.0)
    output.loss.backward()
    a, point = torch.tensor(curvature), torch.tensor(w)
    gradient = a * point
    expected = a * (point + rho * gradient / gradient.norm())
    assert inner.line.weight.grad is not None
    assert torch.allclose(inner.line.weight.grad[0], expected, rtol=1e-4, atol=1e-5)
    assert float(output.loss.detach()) == pytest.approx(float((a * point.square()).sum() / 2), rel=1e-5)
    assert inner.calls == 2
    assert inner.idle.grad is None
    assert torch.equal(inner.line.weight.data[0], point), "the weights themselves were moved"


def test_a_flat_place_has_no_worse_one() -> None:
    inner = Quadratic([1.0])
    inner.line.weight.data.zero_()
    SharpnessAware(inner, 0.1)(None, 0.0).loss.backward()
    assert inner.line.weight.grad is not None
    assert torch.isfinite(inner.line.weight.grad).all()


def test_a_tiny_radius_is_plain_training(settings: FitSettings) -> None:
    plain, sharp = WithTeacher(), WithTeacher()
    fit(plain, Line(), settings)
    fit(SharpnessAware(sharp, 1e-7), Line(), settings)
    for a, b in zip(plain.parameters(), sharp.parameters()):
        assert torch.allclose(a, b, atol=1e-4)
    wide = WithTeacher()
    fit(SharpnessAware(wide, 0.5), Line(), settings)
    assert not torch.allclose(plain.student[0].weight, wide.student[0].weight, atol=1e-2)


def test_both_passes_draw_the_same_masks(settings: FitSettings) -> None:
    masks: list[Tensor] = []

    class Watched(WithTeacher):
        def forward(self, batch: Batch, progress: float) -> StepOutput:
            masks.append(torch.rand(4))
            return super().forward(batch, progress)

    fit(SharpnessAware(Watched(), 0.05), Line(3), settings.model_copy(update={"epochs": 2}))
    assert len(masks) == 12
    for first, second in zip(masks[::2], masks[1::2]):
        assert torch.equal(first, second)
    assert not torch.equal(masks[0], masks[2])


def test_the_loss_that_is_told_is_that_of_the_weights(settings: FitSettings) -> None:
    one = settings.model_copy(update={"epochs": 1})
    plain = fit(WithTeacher(), Line(1), one).history[0]["loss"]
    assert fit(SharpnessAware(WithTeacher(), 0.5), Line(1), one).history[0]["loss"] == pytest.approx(plain, abs=1e-6)


class Remembering(WithTeacher):
    """Counts the batches that each step leaves to be remembered, one in a part of the network and one in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.student[0].kept = Remembered[Tensor]()
        self.kept: Remembered[Tensor] = Remembered()
        self.counts: list[tuple[int, int]] = []
        self.fed_with: list[Tensor] = []

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        self.student[0].kept.append(batch.y)  # type: ignore[operator, union-attr]
        self.kept.append(batch.y)
        return super().forward(batch, progress)

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.counts.append((len(self.kept), len(self.student[0].kept)))  # type: ignore[arg-type]
        self.fed_with += self.kept
        self.kept.clear()
        self.student[0].kept.clear()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_batch_is_remembered_once(settings: FitSettings, accumulate: int) -> None:
    settings = settings.model_copy(update={"epochs": 2, "accumulate": accumulate})
    plain, sharp = Remembering(), Remembering()
    fit(plain, Line(), settings)
    fit(SharpnessAware(sharp, 0.05), Line(), settings)
    assert sharp.counts == plain.counts
    assert max(sharp.counts) == (accumulate, accumulate)
    assert all(torch.equal(a, b) for a, b in zip(sharp.fed_with, plain.fed_with, strict=True))


class Recorded(WithTeacher):
    """Keeps the student's weights after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.seen.append(self.student[0].weight.detach().double().clone())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_a_moving_average_is_its_closed_form(settings: FitSettings, decay: float) -> None:
    inner = Recorded()
    around = MovingAverage(inner, decay)
    fit(around, Line(), settings)
    shares: list[float] = []
    for n in range(1, len(inner.seen) + 1):
        part = max(1 / n, 1 - decay)
        shares = [s * (1 - part) for s in shares] + [part]
    assert sum(shares) == pytest.approx(1)
    if decay:
        # From where the plain mean ends, each step further back counts by one factor less.
        assert shares[-2] == pytest.approx(shares[-1] * decay)
    expected = sum(s * w for s, w in zip(shares, inner.seen))
    assert torch.allclose(around.network[0].weight.double(), expected, atol=1e-6)  # type: ignore[index, arg-type]


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_a_soup_is_the_mean_of_the_last_part(settings: FitSettings, start: float) -> None:
    inner = Recorded()
    around = Soup(inner, start)
    fit(around, Line(), settings)
    counted = [w for w, progress in zip(inner.seen, inner.steps) if progress >= start]
    assert len(counted) == {0.0: 35, 0.5: 18, 1.0: 1}[start]
    expected = torch.stack(counted).mean(0)
    assert torch.allclose(around.network[0].weight.double(), expected, atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize("build", [lambda inner: MovingAverage(inner, 0.9), lambda inner: Soup(inner, 0.2)])
def test_an_average_of_equal_weights_is_itself(build: Callable[[Objective], Averaged]) -> None:
    around = build(Quadratic([1.0, 2.0, 3.0]))
    before = weights(around.inner.network)
    for step in range(20):
        around.after_step(step / 19)
    assert equal(weights(around.network), before)


def test_before_the_soup_begins_the_last_weights_are_used() -> None:
    inner = Quadratic([1.0, 1.0])
    around = Soup(inner, 0.5)
    for step in range(4):
        inner.line.weight.data.fill_(float(step))
        around.after_step(step / 10)
        assert torch.equal(around.network.weight, inner.line.weight)  # type: ignore[arg-type]


def test_buffers_are_those_of_the_latest_step() -> None:
    class Counting(Quadratic):
        def __init__(self) -> None:
            super().__init__([1.0])
            self.norm = nn.BatchNorm1d(2)

        @property
        def network(self) -> nn.Module:
            return self.norm

    inner = Counting()
    around = MovingAverage(inner, 0.9)
    for step in range(3):
        inner.norm(torch.randn(5, 2))
        around.after_step(step / 2)
    assert int(around.network.num_batches_tracked) == 3  # type: ignore[arg-type]
    assert torch.equal(around.network.running_mean, inner.norm.running_mean)  # type: ignore[arg-type]


def test_the_average_is_what_is_tuned_on_and_kept(settings: FitSettings, tune_loss: Callable[..., Tensor]) -> None:
    seen: list[nn.Module] = []

    def watched(network: nn.Module) -> Tensor:
        seen.append(network)
        return tune_loss(network)

    around = MovingAverage(WithTeacher(), 0.9)
    fit(around, Line(), settings, evaluate=watched)
    assert all(network is around.network for network in seen)
    assert around.network is not around.inner.network
    assert not any(p.requires_grad for p in around.network.parameters())


def test_everything_else_is_the_inner_objectives(settings: FitSettings) -> None:
    class Own(WithTeacher):
        begins = 0.2

        def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
            return [{"params": list(self.student[0].parameters()), "lr": 0.1}]

        def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameter_groups(settings))

    around = Soup(SharpnessAware(Own(), 0.05), 0.5)
    assert SharpnessAware(Own(), 0.05).begins == 0.2
    assert (around.begins, Soup(Own(), 0.1).begins) == (0.5, 0.2), "no soup before its first spoon"
    optimiser = around.optimiser(settings)
    assert isinstance(optimiser, torch.optim.SGD)
    own = {id(p) for p in around.inner.inner.student[0].parameters()}  # type: ignore[attr-defined, union-attr]
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == own
    fit(around, Line(2), settings)
    assert int(around.inner.inner.fed) == 10, "after_step ran once a step"  # type: ignore[attr-defined, arg-type]


def build_all(inner: Objective) -> Objective:
    return MovingAverage(SharpnessAware(inner, 0.05), 0.9)


@pytest.mark.parametrize(
    "build",
    [lambda o: SharpnessAware(o, 0.05), lambda o: MovingAverage(o, 0.9), lambda o: Soup(o, 0.4), build_all],
    ids=["sam", "ema", "soup", "sam and ema"],
)
@pytest.mark.parametrize("stop", [4, 14, 19])
def test_an_interrupted_run_goes_on_bit_for_bit(
    build: Callable[[Objective], Objective],
    stop: int,
    tmp_path: Path,
    settings: FitSettings,
    tune_loss: Callable[..., Tensor],
) -> None:
    settings = settings.model_copy(update={"accumulate": 2})
    whole = build(WithTeacher())
    expected = fit(whole, Line(), settings, evaluate=tune_loss)
    path = tmp_path / "checkpoint.safetensors"

    class Stopping(WithTeacher):
        def after_step(self, progress: float) -> None:
            super().after_step(progress)
            if int(self.fed) == stop:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(build(Stopping()), Line(), settings, evaluate=tune_loss, checkpoint_path=path)
    resumed = build(WithTeacher())
    assert fit(resumed, Line(), settings, evaluate=tune_loss, checkpoint_path=path) == expected
    assert equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_together_learn(settings: FitSettings, precision: str) -> None:
    result = fit(build_all(WithTeacher()), Line(), settings.model_copy(update={"precision": precision}))
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
