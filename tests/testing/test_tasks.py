"""Every registered task keeps the contract; tasks that break it are told how."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coverslip.base.registry import TASKS
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.survival import Survival
from coverslip.testing.tasks import check_task


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_keeps_its_contract(name: str) -> None:
    check_task(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("survival", {"bins": 1}),
        ("survival", {"bins": 12}),
        ("survival_parametric", {"components": 1}),
        ("competing_risks", {"bins": 2}),
        ("regression", {"robust": True}),
    ],
)
def test_options_keep_the_contract_too(name: str, options: dict[str, Any]) -> None:
    check_task(name, **options)


def test_a_loss_that_looks_at_the_batch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Classification.loss

    def batch_loss(self: Any, logits: Any, target: Any) -> Any:
        loss, weight = plain(self, logits, target)
        return loss - loss.mean(), weight

    monkeypatch.setattr(Classification, "loss", batch_loss)
    with pytest.raises(AssertionError, match="set least_batch"):
        check_task("classification")


def test_a_task_that_counts_slides_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Survival.fit_target
    monkeypatch.setattr(
        Survival, "fit_target", lambda self, target, groups: plain(self, target, list(range(len(target))))
    )
    with pytest.raises(AssertionError, match="counts slides, not patients"):
        check_task("survival")


def test_a_card_that_forgets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classification, "card", lambda self: {"classes": list(self.classes)[::-1]})
    with pytest.raises(AssertionError, match="builds another task"):
        check_task("classification")


def test_a_loss_of_infinity_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Classification,
        "loss",
        lambda self, z, t: (-z.softmax(1).gather(1, t.y[:, None])[:, 0].log(), torch.ones(len(z))),
    )
    with pytest.raises(AssertionError, match="NaN or infinity"):
        check_task("classification")
