"""What a training step makes of a batch of bags is what it makes of them one by one: the loss and its gradients.

That is so for every method whose objective does not compare bags and, for this test, draws nothing. Which methods those
are is said here for every name, so that a new one has to be put on a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from coverslip.base.registry import AGGREGATORS
from coverslip.mil import FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target
from coverslip.mil.model import ModelCard
from coverslip.mil.supervised import Supervised
from coverslip.testing.aggregators import DIM, example_bags
from coverslip.train import Objective, StepOutput

# A bag of one row gives no instance loss (clam) and counts in no mean of them, and in one of two rows mhim's two masks
# may leave nothing, so that a row is drawn: the shortest here has three.
LENGTHS = (3, 5, 9, 30)
Y = torch.tensor([0, 1, 2, 0])
LEARNS = LearningSet(len(LENGTHS), sum(LENGTHS), Target(Y))

# Options with which a step draws nothing. Masks by a rank stay; those that are drawn go.
DRAWLESS: dict[str, dict[str, Any]] = {
    "abmil": {},
    "abmilx": {},
    "acmil": {"n_masked": 0},
    "aem": {"host": "acmil", "n_masked": 0},
    "clam_mb": {"subtyping": True},
    "clam_sb": {},
    "dsmil": {},
    "dtfd": {"pseudo_bags": 1},
    "gnn_vitcap": {},
    "mambamil": {"states": 4},
    "max": {},
    "mean": {},
    "mhim": {"mask_random": 0.0, "mask_low": 0.3, "mask_high": 0.2, "high_pick": 1.0, "host": "dsmil"},
    "mhim_v2": {"mask_high": 0.3, "keep_ratio": 1.0},
    "packmil": {"keep": 1.0, "alpha": 0.0},
    "rrt": {"attention_dropout": 0.0},
    "scmil": {"beta": 0.0},
    "transmil": {"attention_dropout": 0.0, "landmarks": 7},
    "varmil": {},
    "weakstil": {},
}
# What couples the bags of a step: the rows drawn are so many a class and meet each other in the contrast (ins). Of
# packmil (hyperslides) and scmil (contrast) only the part that is switched off above does.
COUPLED = {"ins"}


def objective_of(name: str, **options: Any) -> Objective:
    options = {"hidden": 16, "dropout": 0.0, **options}
    card = ModelCard(name, options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]})
    torch.manual_seed(0)
    model = SlideModel(card).double()
    objective = model.aggregator.objective(model, model.task, LEARNS) or Supervised(model, model.task)
    return objective.train()


def batch_of(places: Sequence[int]) -> list[LabelledBags]:
    bags = example_bags(LENGTHS).unpack()
    return [LabelledBags(bags[place], Target(Y[place : place + 1])) for place in places]


def gradients(objective: Objective, loss: Tensor) -> Tensor:
    parameters = [p for p in objective.network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found)])


def together_and_alone(objective: Objective) -> tuple[StepOutput, list[StepOutput]]:
    together = objective(LabelledBags(example_bags(LENGTHS), Target(Y)), 0.5)
    return together, [objective(batch, 0.5) for batch in batch_of(range(len(LENGTHS)))]


def test_every_method_is_on_one_side() -> None:
    assert set(DRAWLESS) | COUPLED == set(AGGREGATORS.names())


@pytest.mark.parametrize("name", DRAWLESS)
def test_the_loss_of_a_batch_is_the_mean_of_its_bags(name: str) -> None:
    objective = objective_of(name, **DRAWLESS[name])
    together, alone = together_and_alone(objective)
    for part, value in together.parts.items():
        if part in {"contrast", "alone"}:  # logged by scmil at a weight of 0
            continue
        mean = torch.stack([step.parts[part] for step in alone]).mean()
        assert torch.allclose(value, mean, rtol=0, atol=1e-10), part
    mean = torch.stack([step.loss for step in alone]).mean()
    assert torch.allclose(together.loss, mean, rtol=0, atol=1e-10)
    assert torch.allclose(gradients(objective, together.loss), gradients(objective, mean), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["acmil", "dtfd", "mhim", "mhim_v2", "packmil"])
def test_a_method_that_draws_rows_draws_others_in_another_step(name: str) -> None:
    """Why the test above switches draws off; a step by itself is repeatable."""
    objective = objective_of(name)
    torch.manual_seed(0)
    together = objective(LabelledBags(example_bags(LENGTHS), Target(Y)), 0.5).loss
    losses = []
    for number, batch in enumerate(batch_of(range(len(LENGTHS)))):
        torch.manual_seed(number)
        losses.append(objective(batch, 0.5).loss)
    assert not torch.allclose(together, torch.stack(losses).mean())
    torch.manual_seed(0)
    assert torch.equal(objective(LabelledBags(example_bags(LENGTHS), Target(Y)), 0.5).loss, together)


def test_of_a_method_that_couples_bags_the_bags_own_terms_are_packed() -> None:
    together, alone = together_and_alone(objective_of("ins"))
    for part in ("bags", "calibration"):
        mean = torch.stack([step.parts[part] for step in alone]).mean()
        assert torch.allclose(together.parts[part], mean, rtol=0, atol=1e-10), part
    assert not torch.allclose(together.parts["contrast"], torch.stack([s.parts["contrast"] for s in alone]).mean())


@pytest.mark.parametrize(("name", "part"), [("scmil", "contrast"), ("packmil", "hyperslides")])
def test_what_compares_bags_depends_on_the_bags_beside(name: str, part: str) -> None:
    options = {"beta": 1.0} if name == "scmil" else {"min_rows": 0}
    together, alone = together_and_alone(objective_of(name, **options))
    assert not torch.allclose(together.parts[part], torch.stack([step.parts[part] for step in alone]).mean())
