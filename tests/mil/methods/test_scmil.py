"""The curriculum from contrast to classification."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import SettingsError
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import BagSource, FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target, fit_bags
from coverslip.mil.methods.scmil import Scmil
from coverslip.mil.model import ModelCard
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Mixture
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags
from coverslip.train import Objective

Y = torch.tensor([0, 1, 2, 0])


def model(name: str, **options: Any) -> SlideModel:
    card = ModelCard(name, options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]})
    torch.manual_seed(0)
    return SlideModel(card)


def objective(made: SlideModel, target: Target | None = None) -> Objective:
    target = Target(Y) if target is None else target
    return made.aggregator.objective(made, made.task, LearningSet(4, 52, target)) or Supervised(made, made.task)


def batch(seed: int = 0) -> LabelledBags:
    bags = example_bags(seed=seed)
    return LabelledBags(bags.with_x(bags.x.float()), Target(Y))


def trained(made: SlideModel, steps: int = 5) -> dict[str, torch.Tensor]:
    training = objective(made).train()
    optimiser = training.optimiser(FitSettings(lr=1e-3))
    for step in range(steps):
        torch.manual_seed(step)
        training(batch(step), step / (steps - 1)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        training.after_step(step / (steps - 1))
    return made.state_dict()


@pytest.mark.parametrize("host", ["abmil", "mean"])
def test_beta_zero_trains_the_host_as_it_is_trained_alone(host: str) -> None:
    wrapped = trained(model("scmil", host=host, beta=0.0, queue=8))
    alone = trained(model(host))
    for name, value in alone.items():
        own = name.replace("aggregator.", "aggregator.host.", 1)
        assert torch.equal(value, wrapped[own]), name


def test_beta_one_gives_the_classifier_no_gradient() -> None:
    made = model("scmil", beta_end=1.0)
    objective(made)(batch(), 0.7).loss.backward()
    host = made.aggregator.host
    assert all((p.grad == 0).all() for p in host.classifier.parameters())
    assert (host.projection[0].weight.grad != 0).any()
    assert (made.aggregator.head.layers[0].weight.grad != 0).any()


@pytest.mark.parametrize(
    ("options", "betas"),
    [
        ({}, [1.0, 0.75, 0.0]),
        ({"schedule": "parabolic"}, [1.0, 1 - 0.25**2, 0.0]),
        ({"beta": 0.8, "beta_end": 0.4}, [0.8, 0.7, 0.4]),
    ],
)
def test_beta_falls_from_one_end_to_the_other(options: dict[str, Any], betas: list[float]) -> None:
    method = Scmil(DIM, 3, **options)
    # It has come to its end after .4 of training.
    assert [method.beta_at(p) for p in (0.0, 0.1, 0.4)] == pytest.approx(betas)
    assert method.beta_at(1.0) == pytest.approx(betas[-1])


def test_no_epoch_is_kept_before_the_curriculum_has_ended() -> None:
    assert objective(model("scmil")).begins == 0.4
    assert objective(model("scmil", curriculum=1.0)).begins == 1.0
    assert objective(model("scmil", beta=0.5, beta_end=0.5)).begins == 0, "nothing falls"


def test_a_step_is_the_formula_of_the_paper() -> None:
    made = model("scmil", dropout=0.0, temperature=0.5).double()
    bags = example_bags()
    step = objective(made)(LabelledBags(bags, Target(Y)), 0.1)
    method = made.aggregator
    z = method.head(method.host(bags).embedding).detach()
    # Bags 0 and 3 are each other's only positive; 1 and 2 have none.
    losses = []
    for i, j in ((0, 3), (3, 0)):
        bottom = sum(math.exp(float(z[i] @ z[k]) / 0.5) for k in range(4) if k != i)
        losses.append(-math.log(math.exp(float(z[i] @ z[j]) / 0.5) / bottom))
    assert float(step.parts["contrast"]) == pytest.approx(np.mean(losses))
    assert int(step.parts["alone"]) == 2
    plain = Supervised(made, made.task)(LabelledBags(bags, Target(Y)), 0.1).loss
    assert float(step.loss) == pytest.approx(0.75 * np.mean(losses) + 0.25 * float(plain))


def test_the_queue_gives_a_rare_class_positives() -> None:
    training = objective(model("scmil", queue=6))
    assert int(training(batch(0), 0.0).parts["alone"]) == 2
    training.after_step(0.0)
    assert int(training(batch(1), 0.1).parts["alone"]) == 0
    training.after_step(0.1)
    assert int(training.queue.pushed) == 8
    assert training.queue.known.all()


def test_a_mixed_bag_belongs_to_two_classes() -> None:
    plain = batch()
    mixed = replace(plain, mixture=Mixture(Target(torch.tensor([0, 1, 1, 0])), torch.tensor([1.0, 1.0, 0.5, 1.0])))
    training = objective(model("scmil", dropout=0.0))
    assert int(training(plain, 0.0).parts["alone"]) == 2
    # Bag 2 is half of class 1 now, as bag 1 is.
    assert int(training(mixed, 0.0).parts["alone"]) == 0


def test_inference_is_that_of_the_host() -> None:
    made = model("scmil", heads=2).eval()
    bags = batch().bags
    assert torch.equal(made(bags).logits, made.aggregator.host(bags).logits)


@pytest.mark.parametrize(
    "target",
    [
        Target(torch.rand(4)),
        Target(torch.rand(4, 3)),
        Target(torch.rand(4), event=torch.tensor([0, 1, 1, 0])),
    ],
)
def test_a_target_without_classes_is_refused(target: Target) -> None:
    with pytest.raises(SettingsError, match=r'has no classes.*"classification" or "ordinal"'):
        objective(model("scmil"), target)


def test_a_host_with_its_own_training_is_refused() -> None:
    with pytest.raises(SettingsError, match="brings a training of its own"):
        objective(model("scmil", host="scmil"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.5}, "between 0 and 1"),
        ({"curriculum": 0.0}, "a share of training"),
        ({"temperature": 0.0}, "temperature is over 0"),
        ({"queue": -1}, "a number of bags"),
        ({"heds": 2}, "Did you mean 'heads'"),
        ({"host": "max", "heads": 2}, "no option 'heads'"),
    ],
)
def test_a_wrong_option_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        model("scmil", **options)


def test_it_wants_several_bags_and_classes_alike() -> None:
    assert Scmil.least_bags == 8
    assert Scmil.sampling == "balanced"


@pytest.mark.parametrize("options", [{"queue": 8, "schedule": "parabolic", "heads": 2}, {"host": "mean"}])
def test_other_kinds_keep_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("scmil", **options)


def test_planted_bags_are_learnt_and_their_witnesses_found(
    features_of: Callable[[PlantedBags], list[Features]],
) -> None:
    planted = make_bags(140, rows=(10, 40), dim=16, witness_rate=0.15, shift=4.0)
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    slides = list(source.names)
    settings = FitSettings(device="cpu", epochs=15, lr=1e-3)
    train, tune, test = source.take(slides[:60]), source.take(slides[60:80]), source.take(slides[80:])
    task = Classification(("no", "yes"))
    learnt = fit_bags(train, tune, task, AggregatorSettings(name="scmil", options={"queue": 32}), settings)
    assert roc_auc_score(planted.y[80:], learnt.predict(test)["p_yes"]) > 0.95
    evidence = learnt.output(test.bags(range(len(test)))).evidence
    assert evidence is not None
    rows = np.repeat(planted.y[80:] == 1, test.lengths)
    score = (evidence[:, 1] - evidence[:, 0]).numpy()
    assert roc_auc_score(planted.witness[planted.offsets[80] :][rows], score[rows]) > 0.8
