"""Training on few bags of a class, with mixed bags, sharp-aware steps and averaged weights: `fit_bags` as a whole."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS, Entry
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import BagSource, LabelledBags, LearningSet, SlideModel, Target, build_task, fit_bags
from coverslip.mil.methods.abmil import Abmil
from coverslip.mil.supervised import Supervised
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.train import Objective, StepOutput

Make = Callable[[PlantedBags], list[Features]]


def task(**options: Any) -> Classification:
    return Classification(("no", "yes"), **options)


def rare(features_of: Make) -> tuple[BagSource, BagSource, Tensor]:
    """54 training bags, of which six are positive, and 60 to test on, half of them positive."""
    planted = make_bags(168, rows=(20, 40), dim=12, witness_rate=0.2, shift=4.0, seed=4)
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    names, y = np.array(source.names), planted.y[:108]
    learnt = np.concatenate([np.flatnonzero(y == 0)[:48], np.flatnonzero(y == 1)[:6]])
    return source.take(names[:108][learnt]), source.take(names[108:]), torch.from_numpy(planted.y[108:])


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"sampling": "balanced"}),
        ({"weights": "effective_number"}, {}),
        ({"loss": "focal"}, {}),
        ({"loss": "logit_adjusted"}, {}),
        ({}, {"sampling": "balanced", "augment": "smote", "average": "ema", "sam": 0.02}),
    ],
)
def test_a_rare_class_is_learnt(options: dict[str, Any], settings: dict[str, Any], features_of: Make) -> None:
    train, test, y = rare(features_of)
    model = fit_bags(
        train, None, task(**options), "abmil", FitSettings(device="cpu", epochs=12, lr=1e-3, batch=6, **settings)
    )
    p = model.predict(test)["p_yes"].to_numpy()
    assert roc_auc_score(y, p) > 0.95
    assert (p[y.numpy() == 1] > 0.5).mean() > 0.7


def test_balanced_sampling_needs_classes_when_it_is_asked_for(source: BagSource, quick: FitSettings) -> None:
    numbers = source.with_target(Target(torch.arange(24).float()))
    asked = quick.model_copy(update={"sampling": "balanced", "epochs": 1})
    with pytest.raises(SettingsError, match=r"draws as many bags of each class; a regression target has no classes"):
        fit_bags(numbers, None, build_task("regression", {}), "mean", asked)


def registered(monkeypatch: pytest.MonkeyPatch, method: type) -> AggregatorSettings:
    monkeypatch.setitem(AGGREGATORS.entries, "own", Entry("own", "somewhere", "Own", licence="MIT"))
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: method if name == "own" else load(name))
    return AggregatorSettings(name="own")


class WishesBalance(Abmil):
    """Notes the target and the weights of each training step."""

    sampling = "balanced"
    seen: list[tuple[Tensor, Tensor]] = []

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        seen = self.seen

        class Noting(Supervised):
            def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
                weights = getattr(self.task, "class_weights", torch.ones(1))
                seen.append((batch.target.y, weights.clone()))
                return super().forward(batch, progress)

        return Noting(network, task)


def test_auto_does_what_the_method_wishes_and_classes_count_once(
    source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    WishesBalance.seen.clear()
    own = registered(monkeypatch, WishesBalance)
    few = source.with_target(Target(torch.tensor([1] * 4 + [0] * 20)))
    model = fit_bags(few, None, task(), own, quick.model_copy(update={"epochs": 1}))
    y = torch.cat([target for target, _ in WishesBalance.seen])
    assert torch.bincount(y).tolist() == [12, 12]
    assert all(weights.tolist() == [1.0, 1.0] for _, weights in WishesBalance.seen)
    # Of twelve patients four have a slide of the rare class as well. What is tuned on weighs it.
    assert model.task.class_weights.tolist() == pytest.approx([16 / 24, 16 / 8])  # type: ignore[operator]

    WishesBalance.seen.clear()
    fit_bags(few, None, task(), own, quick.model_copy(update={"epochs": 1, "sampling": "uniform"}))
    assert torch.bincount(torch.cat([target for target, _ in WishesBalance.seen])).tolist() == [20, 4]
    assert WishesBalance.seen[0][1].tolist() == pytest.approx([16 / 24, 16 / 8])

    WishesBalance.seen.clear()
    numbers = source.with_target(Target(torch.arange(24).float()))
    fit_bags(numbers, None, build_task("regression", {}), own, quick.model_copy(update={"epochs": 1}))
    assert sorted(torch.cat([target for target, _ in WishesBalance.seen]).tolist()) == list(range(24))


ALL = {"sampling": "balanced", "augment": "psemix", "augment_options": {"rate": 0.9}, "sam": 0.05, "max_rows": 8}


@pytest.mark.parametrize(
    "settings", [{**ALL, "average": "ema"}, {**ALL, "average": "soup", "augment": "remix", "augment_options": {}}]
)
def test_all_of_it_goes_on_bit_for_bit(
    settings: dict[str, Any], source: BagSource, quick: FitSettings, tmp_path: Path
) -> None:
    slides = list(source.names)
    train, tune = source.take(slides[:16]), source.take(slides[16:])
    chosen = quick.model_copy(update=settings)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    def run(folder: Path | None = None, on_epoch: Callable[..., None] | None = None) -> SlideModel:
        return fit_bags(train, tune, task(), "abmil", chosen, folder=folder, on_epoch=on_epoch)

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop)
    epochs: list[float] = []
    resumed = run(tmp_path, lambda row: epochs.append(row["epoch"]))
    assert epochs == [3, 4]
    assert whole.card.training["history"] == resumed.card.training["history"]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert torch.equal(SlideModel.load(tmp_path).state_dict()["task.class_weights"], whole.task.class_weights)


class WithTeacher(Abmil):
    """A method with a teacher, an extra loss and an optimiser of its own."""

    made: list[Any] = []

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        class Taught(Supervised):
            def __init__(self) -> None:
                super().__init__(network, task)
                self.teacher = nn.Linear(8, 8).requires_grad_(False)
                self.steps = 0

            def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
                assert batch.mixture is None or len(batch.mixture.share) == len(batch.bags)
                return super().forward(batch, progress)

            def after_step(self, progress: float) -> None:
                self.steps += 1
                self.teacher.weight.mul_(0.5)

            def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameter_groups(settings), momentum=0.9)

        self.made.append(Taught())
        return self.made[-1]


def test_methods_with_objectives_of_their_own_get_all_of_it(
    source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = registered(monkeypatch, WithTeacher)
    settings = quick.model_copy(update={**ALL, "average": "ema", "average_decay": 0.5})
    model = fit_bags(source, None, task(), own, settings)
    taught = WithTeacher.made[-1]
    assert taught.steps == model.card.training["steps"] == 20
    assert float(taught.teacher.weight.abs().max()) < 1e-5
    last, kept = taught.network.aggregator.classifier.weight, model.aggregator.classifier.weight
    assert not torch.equal(last, kept)  # type: ignore[arg-type]
    assert torch.allclose(last, kept, atol=0.05), "an average is near the last weights"  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in model.parameters())


def test_defaults_train_as_they_did(source: BagSource, quick: FitSettings) -> None:
    # The same order, the same steps: what is not asked for draws nothing and changes nothing.
    plain = fit_bags(source, None, task(), "abmil", quick)
    said = quick.model_copy(update={"sampling": "uniform", "average_decay": 0.5, "average_from": 0.1})
    again = fit_bags(source, None, task(), "abmil", said)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), again.state_dict().values()))
