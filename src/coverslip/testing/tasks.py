"""The contract of tasks as a test: `check_task(name)` fails with a sentence where a task breaks it.

from coverslip.testing.tasks import check_task

def test_my_task_keeps_the_contract():
    check_task("my_task", target=Target(torch.rand(8)))
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coverslip.base.registry import TASKS
from coverslip.mil import Target, build_task, make_task
from coverslip.mil.tasks.contract import Task, weighted_mean

CLASSES = ("a", "b", "c")
GRID = (1.0, 2.0, 5.0, 9.0)
NUM_BAGS = 16


def check_task(name: str, *, target: Target | None = None, **options: Any) -> None:
    """Nothing, where the task keeps its contract; an AssertionError that says what it breaks otherwise.

    `target` is that of bags whose labels are all known; where not given, one that fits the tasks that are shipped.
    """
    assert TASKS.entry(name).licence, f"{name}: its entry says no licence"
    target = example_target(name) if target is None else target
    task = _build(name, options)
    assert task.kind == name, f"{name}: kind is {task.kind!r}"
    assert len(set(task.columns)) == len(task.columns) > 0, f"{name}: columns are {task.columns}"
    assert task.explained, f"{name}: nothing can be explained"
    task.fit_target(target, _groups(target))
    _check_loss(task, target)
    _check_bags_alone(task, target)
    _check_saturation(task, target)
    _check_gradients(task, target)
    _check_learning(task, target)
    _check_half_precision(task, target)
    _check_missing(task, target)
    _check_slides_of_one_patient(name, options, target)
    _check_card(task, target)
    _check_degenerate(name, options, target)


def example_target(kind: str) -> Target:
    """Targets of 16 bags for a kind that is shipped: classes, levels, labels, numbers or times with ties."""
    generator = torch.Generator().manual_seed(0)
    if kind in ("classification", "ordinal"):
        return Target(torch.arange(NUM_BAGS) % len(CLASSES))
    if kind == "multilabel":
        y = torch.randint(0, 2, (NUM_BAGS, len(CLASSES)), generator=generator).float()
        return Target(y, known=torch.ones_like(y, dtype=torch.bool))
    if kind == "regression":
        return Target(torch.randn(NUM_BAGS, generator=generator) * 3 + 50)
    causes = len(CLASSES) if kind == "competing_risks" else 1
    time = torch.rand(NUM_BAGS, generator=generator).mul(20).round().clamp(min=1) / 2
    return Target(time, event=torch.arange(NUM_BAGS) % (causes + 1))


def _build(name: str, options: dict[str, Any]) -> Task:
    return make_task(name, classes=CLASSES, grid=GRID, weights="balanced", options=options)


def _groups(target: Target) -> list[str]:
    return [f"p{i}" for i in range(len(target))]


def _logits(task: Task, bags: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(bags, task.num_outputs, generator=generator, dtype=torch.float64) * scale).to(dtype)


def _check_loss(task: Task, target: Target) -> None:
    logits = _logits(task, len(target))
    loss, weight = task.loss(logits, target)
    assert loss.shape == weight.shape == (len(target),), f"loss {tuple(loss.shape)}, weight {tuple(weight.shape)}"
    assert torch.isfinite(loss).all() and torch.isfinite(weight).all(), "the loss holds NaN or infinity"
    assert (weight >= 0).all() and weight.sum() > 0, "weights are negative, or all zero"
    values = task.predictions(logits)
    assert values.shape == (len(target), len(task.columns)), f"predictions are {tuple(values.shape)}"
    assert torch.isfinite(values).all(), "predictions hold NaN or infinity"
    assert task.score(logits).shape == (len(target), len(task.explained)), "score has not one column an explained thing"
    backwards = torch.arange(len(target)).flip(0)
    other, _ = task.loss(logits[backwards], target.take(backwards))
    _same(other.flip(0), loss, "the loss depends on the order of bags")


def _check_bags_alone(task: Task, target: Target) -> None:
    """A task that compares bags says so in `least_batch`; any other gives each bag its loss whatever stands beside."""
    logits = _logits(task, len(target))
    together, _ = task.loss(logits, target)
    alone = [task.loss(logits[i : i + 1], target.take(torch.tensor([i]))) for i in range(len(target))]
    assert all(torch.isfinite(loss).all() for loss, _ in alone), "one bag alone gives NaN or infinity"
    if task.least_batch == 1:
        _same(torch.cat([loss for loss, _ in alone]), together, "a bag's loss depends on the others; set least_batch")
    p = torch.cat([task.predictions(logits[i : i + 1]) for i in range(len(target))])
    _same(p, task.predictions(logits), "a bag's prediction depends on the others")


def _check_saturation(task: Task, target: Target) -> None:
    for scale in (30.0, 300.0):
        logits = _logits(task, len(target), scale=scale).requires_grad_()
        loss = weighted_mean(*task.loss(logits, target))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all(), f"logits of {scale:g} give NaN or infinity"
        assert torch.isfinite(task.predictions(logits)).all(), f"logits of {scale:g} give predictions of NaN"


def _check_gradients(task: Task, target: Target) -> None:
    logits = _logits(task, 4, dtype=torch.float64).requires_grad_()
    few = target.take(torch.arange(4))
    wide = task.double()
    right = torch.autograd.gradcheck(lambda z: wide.loss(z, few)[0], (logits,), raise_exception=False)
    task.float()
    # A loss that goes through single precision cannot be compared with finite differences of 1e-6.
    loss, _ = task.loss(logits.detach(), few)
    assert right or loss.dtype == torch.float32, "gradients of the loss are not those of finite differences"


def _check_learning(task: Task, target: Target) -> None:
    """Descent on the logits themselves ends far below where it began: the loss leads to the target."""
    logits = torch.zeros(len(target), task.num_outputs, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    losses = []
    for _ in range(100):
        loss = weighted_mean(*task.loss(logits, target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1, f"100 steps of descent bring the loss from {losses[0]:.3f} to {losses[-1]:.3f}"


def _check_half_precision(task: Task, target: Target) -> None:
    logits = _logits(task, len(target)).bfloat16()
    exact, rough = task.loss(logits.float(), target)[0], task.loss(logits, target)[0]
    assert (exact - rough.float()).abs().max() < 1e-2 * max(1.0, float(exact.abs().max())), "half precision is lossy"


def _check_missing(task: Task, target: Target) -> None:
    """A bag of which nothing is known weighs nothing."""
    if target.known is None:
        return
    nothing = Target(target.y, known=torch.zeros_like(target.known), event=target.event)
    loss, weight = task.loss(_logits(task, len(target)), nothing)
    assert torch.isfinite(loss).all() and not weight.any(), "bags without a label have a weight"


def _check_slides_of_one_patient(name: str, options: dict[str, Any], target: Target) -> None:
    """A patient with many slides does not shift what is learnt of the labels."""
    once, often = _build(name, options), _build(name, options)
    once.fit_target(target, _groups(target))
    again = torch.cat([torch.arange(len(target)), torch.zeros(5, dtype=torch.int64)])
    often.fit_target(target.take(again), [*_groups(target), *["p0"] * 5])
    for key, value in once.state_dict().items():
        assert torch.equal(value, often.state_dict()[key]), f"{key} counts slides, not patients"


def _check_card(task: Task, target: Target) -> None:
    logits = _logits(task, len(target))
    if task.needs_training_logits:
        task.finish(logits, target, _groups(target))
    again = build_task(task.kind, task.card())
    again.load_state_dict(task.state_dict())
    assert again.columns == task.columns and again.explained == task.explained, "the card builds another task"
    assert torch.equal(again.predictions(logits), task.predictions(logits)), "the card loses what predictions need"


def _check_degenerate(name: str, options: dict[str, Any], target: Target) -> None:
    """One patient, all alike, and for times no event or one: finite numbers, no crash."""
    cases = [target.take(torch.tensor([0])), target.take(torch.zeros(6, dtype=torch.int64))]
    if target.event is not None:
        none = torch.zeros_like(target.event)
        one = none.clone()
        one[0] = 1
        cases += [Target(target.y, event=none), Target(target.y, event=one)]
    for case in cases:
        task = _build(name, options)
        task.fit_target(case, _groups(case))
        logits = _logits(task, len(case)).requires_grad_()
        loss = weighted_mean(*task.loss(logits, case))
        (gradient,) = torch.autograd.grad(loss, logits)
        task.finish(logits.detach(), case, _groups(case))
        values = (loss, gradient, task.predictions(logits), *task.state_dict().values())
        assert all(torch.isfinite(v).all() for v in values), f"a target of {case.facts()[:3]} ... gives NaN"


def _same(a: Tensor, b: Tensor, what: str) -> None:
    worst = float((a - b).detach().abs().max())
    assert worst <= 1e-5 * max(1.0, float(b.detach().abs().max())), f"{what}: they differ by {worst:.3g}"
