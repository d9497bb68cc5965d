from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from coverslip.base.errors import CoverslipError, FeatureError
from coverslip.base.registry import AGGREGATORS, Entry
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import Bags, BagSource, LabelledBags, LearningSet, SlideModel, Target, fit_bags
from coverslip.mil.fit import CHECKPOINT, PatientLosses
from coverslip.mil.methods.abmil import Abmil
from coverslip.mil.supervised import Supervised, task_loss
from coverslip.mil.target import Mixture
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.train import Objective

TRAIN = [f"s{i:03d}" for i in range(16)]
TUNE = [f"s{i:03d}" for i in range(16, 24)]


def task() -> Classification:
    return Classification(("no", "yes"))


def weights(model: nn.Module) -> Mapping[str, torch.Tensor]:
    return model.state_dict()


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_without_standardising_wide_ranging_dimensions_train_to_chance(
    features_of: Callable[[PlantedBags], list[Features]], quick: FitSettings
) -> None:
    planted = make_bags(60, rows=(5, 15), dim=16, witness_rate=0.5, shift=4.0)
    planted.x[:, 0] *= 3000.0  # a dimension that says nothing, loudly
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    slides = list(source.names)
    settings = quick.model_copy(update={"epochs": 20})
    train, tune = source.take(slides[:40]), source.take(slides[40:])
    losses = {}
    for standardise in (True, False):
        model = fit_bags(train, tune, task(), "mean", settings.model_copy(update={"standardise": standardise}))
        losses[standardise] = model.card.training["best_loss"]
    assert losses[True] < 0.5
    assert losses[False] > 0.6, losses


def test_standardisation_and_class_weights_come_from_the_training_slides_alone(
    source: BagSource, quick: FitSettings
) -> None:
    train = source.take(TRAIN)
    model = fit_bags(train, source.take(TUNE), task(), "mean", quick)
    mean, sd = train.moments()
    assert torch.equal(model.standardise.mean, mean)
    assert torch.equal(model.standardise.sd, sd)
    assert not torch.equal(mean, source.moments()[0])


def test_the_same_seed_gives_the_same_model(source: BagSource, quick: FitSettings) -> None:
    def trained(seed: int) -> SlideModel:
        settings = quick.model_copy(update={"seed": seed})
        return fit_bags(source.take(TRAIN), source.take(TUNE), task(), "abmil", settings)

    torch.manual_seed(1)
    first = trained(1)
    torch.manual_seed(2)
    assert equal(weights(first), weights(trained(1)))
    assert not equal(weights(first), weights(trained(2)))


def test_an_interrupted_fit_goes_on_bit_for_bit(source: BagSource, quick: FitSettings, tmp_path: Path) -> None:
    settings = quick.model_copy(update={"max_rows": 10})

    def run(folder: Path | None, stop_in: int = 0) -> SlideModel:
        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == stop_in:
                signal.raise_signal(signal.SIGINT)

        return fit_bags(
            source.take(TRAIN), source.take(TUNE), task(), "abmil", settings, folder=folder, on_epoch=on_epoch
        )

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_in=2)
    assert (tmp_path / CHECKPOINT).exists()
    epochs: list[int] = []
    resumed = fit_bags(
        source.take(TRAIN),
        source.take(TUNE),
        task(),
        "abmil",
        settings,
        folder=tmp_path,
        on_epoch=lambda row: epochs.append(int(row["epoch"])),
    )
    assert epochs == [3, 4]
    assert equal(weights(whole), weights(resumed))
    assert whole.card.training["history"] == resumed.card.training["history"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_checkpoint_of_other_labels_is_not_gone_on_with(
    source: BagSource, quick: FitSettings, tmp_path: Path, planted: PlantedBags, features_of: Any
) -> None:
    def stop(row: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_bags(source.take(TRAIN), None, task(), "mean", quick, folder=tmp_path, on_epoch=stop)
    other = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y).roll(1))).take(TRAIN)
    epochs: list[int] = []
    fit_bags(other, None, task(), "mean", quick, folder=tmp_path, on_epoch=lambda row: epochs.append(int(row["epoch"])))
    assert epochs == [1, 2, 3, 4]


def test_without_tuning_slides_the_last_weights_are_kept(source: BagSource, quick: FitSettings) -> None:
    model = fit_bags(source, None, task(), "mean", quick)
    assert model.card.training["best_epoch"] is None
    assert model.card.training["epochs"] == 4


def test_the_tuning_loss_counts_patients_once(planted: PlantedBags, features_of: Any) -> None:
    # Patient p has three slides of class 0, q one of class 1.
    source = BagSource(
        features_of(planted)[:4],
        patients={"s000": "p", "s001": "q", "s002": "p", "s003": "p"},
        target=Target(torch.tensor([0, 1, 0, 0])),
    )
    logits = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0], [3.0, 0.0]])

    class Fixed(nn.Module):
        def forward(self, bags: Any, target: Any = None) -> Any:
            places = [int(name[1:]) for name in bags.slides]
            return type("Output", (), {"logits": logits[places]})

    loss = -logits.log_softmax(1)[torch.arange(4), torch.tensor([0, 1, 0, 0])]
    losses = PatientLosses(source, task=task(), device=torch.device("cpu"))(Fixed())
    assert torch.allclose(losses, torch.stack([loss[[0, 2, 3]].mean(), loss[1]]))


def test_extreme_features_end_in_a_sentence_that_names_slides(planted: PlantedBags) -> None:
    # Finite numbers whose products with anything are not.
    features = [Features(f"s{i:03d}", np.sign(planted.bag(i)) * np.float32(3e38)) for i in range(24)]
    source = BagSource(features, target=Target(torch.from_numpy(planted.y)))
    with pytest.raises(CoverslipError, match=r"loss became .* in epoch 1, on s0"):
        fit_bags(source, None, task(), "mean", FitSettings(device="cpu", standardise=False, epochs=2))


def test_a_method_that_needs_positions_says_so(planted: PlantedBags, quick: FitSettings) -> None:
    source = BagSource(
        [Features("a", planted.bag(0)), Features("b", planted.bag(1))], target=Target(torch.tensor([0, 1]))
    )
    Abmil.uses_positions = True
    try:
        with pytest.raises(FeatureError, match=r"^a: the method 'abmil' uses positions"):
            fit_bags(source, None, task(), "abmil", quick)
    finally:
        Abmil.uses_positions = False


class OwnObjective(Supervised):
    """A method's own training step, with parts that learn at another rate."""

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        head = list(self.network.aggregator.classifier.parameters())  # type: ignore[union-attr]
        rest = [p for p in self.parameters() if all(p is not q for q in head)]
        return [{"params": rest, "lr": 0.0}, {"params": head, "lr": settings.lr}]


class OwnWay(Abmil):
    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        return OwnObjective(network, task)


def test_a_method_may_bring_its_own_objective_and_rates(
    source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AGGREGATORS.entries, "own", Entry("own", "somewhere", "OwnWay", licence="MIT"))
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: OwnWay if name == "own" else load(name))
    trained = weights(fit_bags(source, None, task(), AggregatorSettings(name="own"), quick))
    fresh = weights(fit_bags(source, None, task(), "abmil", quick.model_copy(update={"epochs": 1, "lr": 1e-12})))
    assert torch.allclose(trained["aggregator.projection.0.weight"], fresh["aggregator.projection.0.weight"])
    assert not torch.allclose(trained["aggregator.classifier.weight"], fresh["aggregator.classifier.weight"])


class Drawing(Abmil):
    """Draws weights only when training begins."""

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> None:
        nn.init.normal_(self.classifier.weight)


def test_what_an_objective_draws_depends_on_the_seed_alone(
    source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: Drawing if name == "abmil" else load(name))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(weights(fit_bags(source, None, task(), "abmil", quick))["aggregator.classifier.weight"])
    assert torch.equal(*found)


def test_half_the_data_in_bfloat16_still_learns(source: BagSource, quick: FitSettings) -> None:
    settings = quick.model_copy(update={"precision": "bf16", "epochs": 10})
    history = fit_bags(source, None, task(), "abmil", settings).card.training["history"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_mixed_bag_is_worth_its_shares_of_two_targets() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    own, other = Target(torch.tensor([0, 1])), Target(torch.tensor([1, 1]))
    bags = Bags(torch.zeros(2, 1), torch.tensor([0, 1, 2]), None, ("a", "b"))
    mixed = LabelledBags(bags, own, Mixture(other, torch.tensor([0.25, 1.0])))
    each = -logits.log_softmax(1)
    expected = (0.25 * each[0, 0] + 0.75 * each[0, 1] + each[1, 1]) / 2
    assert torch.allclose(task_loss(task(), logits, mixed), expected)
