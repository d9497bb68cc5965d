from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import Target, build_task, make_task
from coverslip.mil.build import check_task_options
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import weighted_mean
from coverslip.testing.tasks import check_task


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


def made(loss: str, **options: object) -> Classification:
    return Classification(("a", "b", "c"), loss=loss, **options)  # type: ignore[arg-type]


def minimum(task: Classification, posterior: torch.Tensor) -> torch.Tensor:
    """The logits (1, k) of lowest expected loss, where each class comes with its chance `posterior`."""
    logits = torch.zeros(1, task.num_outputs, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def expected() -> torch.Tensor:
        optimiser.zero_grad()
        loss, weight = task.loss(logits.expand(task.num_outputs, -1), Target(torch.arange(task.num_outputs)))
        total = (posterior * weight * loss).sum()
        total.backward()
        return total

    optimiser.step(expected)  # type: ignore[arg-type]
    return logits.detach()


POSTERIORS = [[0.7, 0.2, 0.1], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33], [0.05, 0.15, 0.8]]


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_predictions_are_the_posterior_at_the_minimum(posterior: list[float], gamma: float) -> None:
    task = made("focal", gamma=gamma, weights="none")
    logits = minimum(task, torch.tensor(posterior))
    assert task.predictions(logits)[0].tolist() == pytest.approx(posterior, abs=5e-3)
    if max(posterior) > 0.5:
        assert float(logits.softmax(1).max()) < max(posterior), "softmax itself should be too unsure"


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_logit_adjusted_predictions_have_the_classes_shares_taken_out(posterior: list[float], tau: float) -> None:
    task = made("logit_adjusted", tau=tau)
    task.fit_target(Target(torch.tensor([0] * 12 + [1] * 6 + [2] * 2)), [f"p{i}" for i in range(20)])
    shares = torch.tensor([0.6, 0.3, 0.1])
    expected = torch.tensor(posterior) / shares**tau
    found = task.predictions(minimum(task, torch.tensor(posterior)))[0]
    assert found.tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=5e-3)


@pytest.mark.parametrize("loss", ["focal", "logit_adjusted"])
def test_without_gamma_and_tau_losses_are_cross_entropy(loss: str) -> None:
    logits, target = torch.randn(6, 3), Target(torch.arange(6) % 3)
    plain, other = made("cross_entropy", weights="none"), made(loss, gamma=0.0, tau=0.0, weights="none")
    for task in (plain, other):
        task.fit_target(Target(torch.tensor([0, 0, 0, 1, 2])), list("pqrst"))
    assert torch.allclose(plain.loss(logits, target)[0], other.loss(logits, target)[0], atol=1e-6)
    assert torch.allclose(plain.predictions(logits), other.predictions(logits), atol=1e-6)


def test_focal_loss_is_its_formula_and_finite_far_out() -> None:
    task = made("focal", gamma=2.0)
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.2, 0.1]])
    q = logits.softmax(1)
    expected = [-float((1 - q[i, k]) ** 2 * q[i, k].log()) for i, k in ((0, 2), (1, 0))]
    assert task.loss(logits, Target(torch.tensor([2, 0])))[0].tolist() == pytest.approx(expected, rel=1e-5)
    far = torch.tensor([[900.0, 0.0, -900.0], [-1e-4, 0.0, 88.0], [0.0, 0.0, 0.0]])
    values = task.predictions(far)
    assert torch.isfinite(values).all()
    assert torch.allclose(values.sum(1), torch.ones(3))
    assert values[2].tolist() == pytest.approx([1 / 3] * 3)


def test_focal_predictions_rise_with_their_logit() -> None:
    z = torch.linspace(-12, 12, 4001).double()
    p = Classification(("a", "b"), loss="focal").predictions(torch.stack([z, -z], 1))[:, 0]
    assert (p.diff() >= -1e-7).all()
    assert p[0] < 1e-6


def test_effective_numbers_lie_between_no_weights_and_balanced_ones() -> None:
    target, groups = Target(torch.tensor([0] * 90 + [1] * 10)), [f"p{i}" for i in range(100)]

    def ratio(**options: object) -> float:
        task = Classification(("a", "b"), **options)  # type: ignore[arg-type]
        task.fit_target(target, groups)
        assert float(task.class_weights @ torch.tensor([90.0, 10.0])) == pytest.approx(100.0, rel=1e-5)
        return float(task.class_weights[1] / task.class_weights[0])

    by_hand = ((1 - 0.99**90) / 0.01) / ((1 - 0.99**10) / 0.01)
    assert ratio(weights="effective_number", beta=0.99) == pytest.approx(by_hand, rel=1e-5)
    assert 1 < ratio(weights="effective_number", beta=0.9) < by_hand < ratio(weights="balanced") == pytest.approx(9)
    assert ratio(weights="effective_number", beta=0.0) == pytest.approx(1)
    assert ratio(weights="effective_number", beta=0.999999) == pytest.approx(9, rel=1e-3)


@pytest.mark.parametrize(
    "options", [{"weights": "balanced"}, {"weights": "effective_number"}, {"loss": "logit_adjusted"}]
)
@pytest.mark.parametrize("posterior", [[0.7, 0.3], [0.2, 0.8]])
def test_drawing_classes_alike_and_weights_count_a_class_once(options: dict[str, str], posterior: list[float]) -> None:
    # Drawn as they come, or each class alike: the best logits are the same.
    task = Classification(("a", "b"), **options)  # type: ignore[arg-type]
    target, groups = Target(torch.tensor([0] * 30 + [1] * 10)), [f"p{i}" for i in range(40)]
    task.fit_target(target, groups)
    natural = torch.tensor(posterior)
    drawn = natural / torch.tensor([0.75, 0.25])
    as_they_come = minimum(task, natural).softmax(1)
    alike = minimum(task.as_drawn(target, groups), drawn / drawn.sum()).softmax(1)  # type: ignore[arg-type]
    assert torch.allclose(as_they_come, alike, atol=2e-3)


def test_unweighted_classes_stay_so_when_drawn_alike() -> None:
    task = Classification(("a", "b"), weights="none")
    target = Target(torch.tensor([0, 0, 1]))
    task.fit_target(target, ["p", "q", "r"])
    assert task.as_drawn(target, ["p", "q", "r"]).class_weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma": -1.0}, r"options.gamma = -1"),
        ({"tau": -0.5}, r"options.tau = -0.5"),
        ({"beta": 1.0}, r"options.beta = 1"),
        ({"loss": "logit_adjusted", "weights": "effective_number"}, "both make up for rare classes"),
    ],
)
def test_losses_that_make_no_sense_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Classification(("a", "b"), **options)  # type: ignore[arg-type]


def test_a_loss_by_another_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(SettingsError, match=r"'cross_entropy' or 'focal' or 'logit_adjusted'"):
        check_task_options("classification", {"loss": "focall"})


@pytest.mark.parametrize("kind", ["multilabel", "regression", "survival"])
def test_effective_numbers_are_of_classes(kind: str) -> None:
    with pytest.raises(SettingsError, match="effective_number"):
        make_task(kind, classes=("a", "b"), grid=(1.0, 2.0), weights="effective_number", options={})


@pytest.mark.parametrize("loss", ["focal", "logit_adjusted"])
def test_each_loss_keeps_the_contract(loss: str) -> None:
    check_task("classification", loss=loss)


def test_models_of_plain_losses_have_no_part_more() -> None:
    assert set(Classification(("a", "b")).state_dict()) == {"class_weights"}
    assert set(made("logit_adjusted").state_dict()) == {"class_weights", "log_shares"}
    assert build_task("classification", {"classes": ["a", "b"], "weights": "none"}).card()["loss"] == "cross_entropy"
