"""Points between bag embeddings: where they lie, what they weigh, who may have them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import BagSource, LabelledBags, SlideModel, Target, build_task, fit_bags
from coverslip.mil.methods.abmil import Abmil
from coverslip.mil.model import ModelCard
from coverslip.mil.origin import FeatureOrigin
from coverslip.mil.parts.embedding_smote import EmbeddingSmote
from coverslip.mil.source import BagBatches
from coverslip.mil.supervised import Supervised
from coverslip.mil.tasks.classification import Classification
from coverslip.testing.aggregators import DIM, example_bags
from coverslip.train import Objective, StepOutput


def judged(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Fills with the vectors that are classified beside the bags' own."""
    made: list[Tensor] = []
    classify = Abmil.classify
    monkeypatch.setattr(Abmil, "classify", lambda self, z: made.append(z.detach()) or classify(self, z))
    return made


def around(*, k: int = 5, weight: float = 1.0, method: str = "abmil", outputs: int = 3) -> EmbeddingSmote:
    classes = [f"c{i}" for i in range(outputs)]
    card = ModelCard(method, {"hidden": 16}, FeatureOrigin(DIM, "an example"), "classification", {"classes": classes})
    torch.manual_seed(0)
    model = SlideModel(card).eval()  # without dropout the embeddings of a step are known
    return EmbeddingSmote(Supervised(model, model.task), model.task, k=k, weight=weight)


def batch_of(y: list[int], *, seed: int = 0, names: list[str] | None = None) -> LabelledBags:
    bags = example_bags((3,) * len(y), seed=seed)
    slides = names or [f"bag{seed}-{place}" for place in range(len(y))]
    bags = type(bags)(bags.x.float(), bags.offsets, bags.xy_um, tuple(slides), bags.keys)
    return LabelledBags(bags, Target(torch.tensor(y)))


def on_segments(made: Tensor, ends: Tensor, others: Tensor) -> Tensor:
    """(s, b, n): how far each point is from the segment between each two vectors."""
    a, d = ends[None, :, None], (others[None] - ends[:, None])[None]
    u = (((made[:, None, None] - a) * d).sum(-1) / d.square().sum(-1).clamp(min=1e-12)).clamp(0, 1)
    return (a + u[..., None] * d - made[:, None, None]).norm(dim=-1)


def test_points_lie_between_a_bag_and_a_near_one_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    y = [0, 0, 0, 0, 0, 1, 1, 2]
    step, batch = around(k=2), batch_of(y)
    z = step.network(batch.bags).embedding.detach()
    made = judged(monkeypatch)
    output = step(batch, 0.0)
    (points,) = made
    assert len(points) == 10, "as many of class 1 as of class 0, and none of class 2, which has one bag"
    classes = torch.tensor(y)
    apart = torch.cdist(z, z).masked_fill((classes[:, None] != classes) | torch.eye(8, dtype=torch.bool), torch.inf)
    near = apart <= apart.sort(1).values[:, 1:2]
    near &= apart < torch.inf
    between = on_segments(points, z, z).masked_fill(~near, torch.inf)
    assert between.flatten(1).min(1).values.max() < 1e-5, "a point lies off every allowed segment"
    assert torch.unique(points, dim=0).shape == points.shape, "points that differ"
    assert {"task", "smote"} == set(output.parts)
    assert float(output.loss.detach()) == pytest.approx(sum(float(part.detach()) for part in output.parts.values()))
    found = [int(classes[place // len(y)]) for place in between.flatten(1).argmin(1)]
    assert (found.count(0), found.count(1)) == (5, 5)


def test_classes_weigh_in_the_points_as_in_the_bags() -> None:
    """With every bag of a class alike the points are the bags, so the term is the task's loss of them."""
    y = [0] * 6 + [1] * 2
    step = around(weight=0.5)
    step.task.class_weights.copy_(torch.tensor([0.4, 2.0, 1.0]))  # type: ignore[operator, union-attr]
    batch = batch_of(y)
    first = {0: 0, 1: 6}
    x = torch.cat([batch.bags.x[3 * first[own] : 3 * first[own] + 3] for own in y])
    parts = step(LabelledBags(batch.bags.with_x(x), batch.target), 0.0).parts
    assert float(parts["smote"].detach()) == pytest.approx(0.5 * float(parts["task"].detach()), rel=1e-5)


def test_earlier_bags_are_neighbours_and_no_bag_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    step, made = around(), judged(monkeypatch)
    step(batch_of([0, 1], names=["a", "b"]), 0.0)
    assert [len(points) for points in made] == [0], "nobody knows another of its class"
    step.after_step(0.0)
    step(batch_of([0, 1], seed=1, names=["a", "c"]), 0.0)
    assert [len(points) for points in made] == [0, 1], "c has b to go to; a has only been itself"
    step.after_step(0.0)
    assert int(step.queue.pushed) == 4
    assert not step._pushes


def test_gradients_reach_the_rows_through_the_points() -> None:
    step, batch = around(), batch_of([0, 0, 1, 1])
    step(batch, 0.0).parts["smote"].backward()
    method = step.network.aggregator
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())


def options(**more: Any) -> dict[str, Any]:
    return {"augment": "smote", "augment_options": {"space": "embeddings", **more}}


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    source: BagSource, quick: FitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = Classification(("no", "yes")), quick.model_copy(update={**options(), "sam": 0.02})
    plain = fit_bags(source, None, task, "abmil", quick)
    whole = fit_bags(source, None, task, "abmil", settings)
    batch, asked = BagBatches.batch, []

    def stopping(self: BagBatches, epoch: int, index: int) -> LabelledBags:
        asked.append((epoch, index))
        if (epoch, index) == (2, 1) and asked.count((2, 1)) == 1:
            signal.raise_signal(signal.SIGINT)
        return batch(self, epoch, index)

    monkeypatch.setattr(BagBatches, "batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit_bags(source, None, task, "abmil", settings, folder=tmp_path)
    resumed = fit_bags(source, None, task, "abmil", settings, folder=tmp_path)
    assert asked.count((0, 0)) == 1, "the second run began anew"
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert whole.state_dict().keys() == plain.state_dict().keys(), "the model that is kept is the plain one"
    assert not torch.equal(whole.aggregator.classifier.weight, plain.aggregator.classifier.weight)  # type: ignore[union-attr, arg-type]


def test_evaluation_meets_no_points(source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_bags(source, None, Classification(("no", "yes")), "abmil", quick.model_copy(update=options()))
    made = judged(monkeypatch)
    model.predict(source)
    assert not made


class Silent(Abmil):
    """Trains in a way of its own that tells nobody what it made of the bags."""

    def objective(self, network: Any, task: Any, learns: Any) -> Objective:
        class Alone(Supervised):
            def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
                return StepOutput(super().forward(batch, progress).loss)

        return Alone(network, task)


def test_who_cannot_have_points_is_refused_in_words(
    source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = Classification(("no", "yes")), quick.model_copy(update={**options(), "batch": 8})
    for method in ("max", "ins", "weakstil"):
        with pytest.raises(SettingsError, match=rf"cannot be judged by {method}, for it has no logits"):
            fit_bags(source, None, task, method, settings)
    over = AggregatorSettings(name="scmil", options={"host": "max"})
    with pytest.raises(SettingsError, match="cannot be judged by scmil"):
        fit_bags(source, None, task, over, settings)
    numbers = source.with_target(Target(torch.arange(24).float()))
    with pytest.raises(SettingsError, match="a regression target has no classes"):
        fit_bags(numbers, None, build_task("regression", {}), "abmil", settings)
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: Silent if name == "abmil" else load(name))
    with pytest.raises(SettingsError, match="its training step judges something else than whole bags"):
        fit_bags(source, None, task, "abmil", settings)


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.5}, {"k": 0}, {"weight": 0.0}, {"space": "rows", "k": 3}, {"space": "rows", "weight": 1.0}]
)
def test_options_of_the_other_space_are_refused(wrong: dict[str, Any], source: BagSource, quick: FitSettings) -> None:
    with pytest.raises(SettingsError, match="augment_options"):
        fit_bags(source, None, Classification(("no", "yes")), "abmil", quick.model_copy(update=options(**wrong)))
