from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import Target, build_task
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import weighted_mean


def test_the_loss_is_minus_the_log_of_the_right_class() -> None:
    task = Classification(("a", "b", "c"))
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    loss, weight = task.loss(logits, Target(torch.tensor([0, 2])))
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    assert loss.tolist() == pytest.approx([-float(p[0, 0].log()), -float(p[1, 2].log())])
    assert weight.tolist() == [1.0, 1.0]


def test_balanced_weights_count_patients_and_not_slides() -> None:
    task = Classification(("a", "b"))
    # Four patients, three of class 0; one of them has five slides.
    y = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    task.fit_target(Target(y), ["p", "p", "p", "p", "p", "q", "r", "s"])
    assert task.class_weights.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])


def test_without_weights_all_classes_weigh_one() -> None:
    task = Classification(("a", "b"), weights="none")
    task.fit_target(Target(torch.tensor([0, 0, 1])), ["p", "q", "r"])
    assert task.class_weights.tolist() == [1.0, 1.0]


def test_a_class_nobody_has_in_training_does_not_break_the_weights() -> None:
    task = Classification(("a", "b", "c"))
    task.fit_target(Target(torch.tensor([0, 0, 2, 2])), ["p", "q", "r", "s"])
    assert task.class_weights.tolist() == [1.0, 1.0, 1.0]


def test_predictions_are_probabilities_named_by_class() -> None:
    task = Classification(("no", "yes"))
    assert task.columns == ("p_no", "p_yes")
    values = task.predictions(torch.tensor([[0.0, 1.0]]))
    assert values.sum() == pytest.approx(1.0)
    assert values[0, 1] == pytest.approx(1 / (1 + 2.718281828**-1), abs=1e-6)


def test_a_weighted_mean_without_weights_is_zero() -> None:
    assert weighted_mean(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 0
    assert weighted_mean(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 3.0])) == pytest.approx(3.75)


def test_one_class_is_refused() -> None:
    with pytest.raises(SettingsError, match="two or more classes"):
        Classification(("only",))


def test_a_task_is_built_again_from_its_card() -> None:
    task = Classification(("a", "b"), weights="none")
    again = build_task(task.kind, task.card())
    assert again.columns == task.columns
    assert again.card() == task.card()


def test_another_kind_of_task_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match="classification"):
        build_task("clasification", {})
