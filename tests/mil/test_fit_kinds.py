"""A training that is stopped ends with the same weights, whatever is predicted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coverslip.base.registry import TASKS
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, SlideModel, Target, fit_bags, make_task
from coverslip.mil.fit import CHECKPOINT
from coverslip.mil.tasks.contract import Task
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.testing.tasks import CLASSES, GRID, example_target

TRAINING, BAGS = 32, 48


def target_of(kind: str) -> Target:
    """The example target three times over, with a label left out where labels may be missing."""
    one = example_target(kind)
    target = one.take(torch.arange(BAGS) % len(one))
    if target.known is not None:
        target.known[::5, 0] = False
    return target


@pytest.mark.parametrize("kind", TASKS.names())
def test_a_stopped_training_of_any_kind_goes_on_bit_for_bit(
    kind: str,
    features_of: Callable[[PlantedBags], list[Features]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = make_bags(BAGS, rows=(3, 9), dim=6, witness_rate=0.3, shift=3.0)
    source = BagSource(features_of(planted), target=target_of(kind))
    train, tune = source.take(source.names[:TRAINING]), source.take(source.names[TRAINING:])
    # Cox compares the bags of a step and wants 16 of them: two steps an epoch, then the tuning loss.
    settings = FitSettings(epochs=4, device="cpu", batch=16, lr=1e-2)

    task_class, calls = type(_task(kind)), []
    loss = task_class.loss

    def interrupted(task: Task, logits: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(kind)
        if len(calls) == 4:  # after two steps and the tuning loss: in the midst of the second epoch
            signal.raise_signal(signal.SIGINT)
        return loss(task, logits, target)

    whole = fit_bags(train, tune, _task(kind), "abmil", settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(task_class, "loss", interrupted)
        fit_bags(train, tune, _task(kind), "abmil", settings, folder=tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    seen: list[int] = []
    resumed = fit_bags(
        train,
        tune,
        _task(kind),
        "abmil",
        settings,
        folder=tmp_path,
        on_epoch=lambda row: seen.append(int(row["epoch"])),
    )
    assert seen == [2, 3, 4]
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert whole.card.training["history"] == resumed.card.training["history"]
    assert SlideModel.load(tmp_path).predict(tune).equals(whole.predict(tune))


def _task(kind: str) -> Task:
    return make_task(kind, classes=CLASSES, grid=GRID, weights="balanced", options={})
