"""Single rows learnt from bags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import SettingsError
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import Bags, BagSource, FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target, fit_bags
from coverslip.mil.methods.ins import Ins, best, candidates, drawn
from coverslip.mil.model import ModelCard
from coverslip.mil.target import Mixture
from coverslip.mil.tasks.classification import Classification
from coverslip.nn.segments import mean
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags
from coverslip.train import Objective

SMALL: dict[str, Any] = {"rows": 24, "queue": 32}
Y = torch.tensor([0, 1, 0, 1])


def model(**options: Any) -> SlideModel:
    arguments = {"classes": ["no", "yes"]}
    card = ModelCard("ins", {**SMALL, **options}, FeatureOrigin(DIM, "x"), "classification", arguments)
    torch.manual_seed(0)
    return SlideModel(card)


def objective(made: SlideModel) -> Any:
    training = made.aggregator.objective(made, made.task, LearningSet(4, 52, Target(Y)))
    assert isinstance(training, Objective)
    return training.train()


def batch(*, keys: bool = True) -> LabelledBags:
    bags = example_bags()
    bags = bags.with_x(bags.x.float())
    return LabelledBags(bags if keys else replace(bags, keys=None), Target(Y))


def step(training: Any, progress: float, given: LabelledBags | None = None) -> dict[str, torch.Tensor]:
    output = training(given or batch(), progress)
    assert torch.isfinite(output.loss)
    training.after_step(progress)
    return dict(output.parts)


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("negative", ["auto", "none", 1])
@pytest.mark.parametrize("pool", ["mean", "max", "top", "lse"])
def test_a_bag_is_what_its_rows_are(pool: str, negative: str | int) -> None:
    method = Ins(DIM, 2, pool=pool, negative=negative, top_rows=3, calibrated=False).double().eval()  # type: ignore[arg-type]
    bags = example_bags()
    output = method(bags)
    place = {"auto": 0, "none": 2, 1: 1}[negative]
    h = bags.x.numpy()
    for layer in method.encoder:
        h = np.maximum(h @ layer[0].weight.detach().numpy().T + layer[0].bias.detach().numpy(), 0)
    p = numpy_softmax(h @ method.classifier.weight.detach().numpy().T + method.classifier.bias.detach().numpy())

    def pooled(values: np.ndarray) -> float:
        if pool == "mean":
            return float(values.mean())
        if pool == "lse":
            return float(np.log(np.exp(8 * values).mean()) / 8)
        return float(np.sort(values)[::-1][: 1 if pool == "max" else 3].mean())

    ends = bags.offsets.tolist()
    for b, (start, end) in enumerate(pairwise(ends)):
        rows = p[start:end]
        s = [1 - pooled(1 - rows[:, c]) if c == place else pooled(rows[:, c]) for c in range(2)]
        found = output.logits[b].softmax(0).detach().numpy()
        assert found == pytest.approx(np.array(s) / sum(s), abs=1e-12)
    assert output.evidence.detach().numpy() == pytest.approx(p[:, :2], abs=1e-12)


def test_without_a_calibration_the_map_averages_to_the_prediction() -> None:
    method = Ins(DIM, 2, calibrated=False, pool="mean").double().eval()
    bags = example_bags()
    output = method(bags)
    assert torch.allclose(mean(output.evidence, bags.segments), output.logits.softmax(1), atol=1e-12)


def test_one_output_is_the_log_odds_of_two() -> None:
    torch.manual_seed(0)
    one = Ins(DIM, 1).double().eval()
    torch.manual_seed(0)
    two = Ins(DIM, 2).double().eval()
    logits = two(example_bags()).logits
    assert torch.allclose(one(example_bags()).logits[:, 0], logits[:, 1] - logits[:, 0], atol=1e-12)


def test_a_row_is_of_its_bags_class_or_negative() -> None:
    shares = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 0.5]])
    assert candidates(shares, 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    scores = torch.tensor([[0.0, 9.0, 1.0]] * 3)
    assert best(scores, candidates(shares, 0)).argmax(1).tolist() == [0, 1, 1]
    # A row of a negative bag is negative whatever is said of it, also before there are prototypes.
    nothing = torch.full((3, 3), -torch.inf)
    assert best(nothing, candidates(shares, 0)).argmax(1).tolist() == [0, 0, 0]
    assert best(nothing, candidates(shares, 2)).argmax(1).tolist() == [0, 1, 1]


def test_rows_of_negative_bags_stay_pinned() -> None:
    training = objective(model())
    negative = (Y == 0)[batch().bags.seg]
    for i in range(6):
        step(training, i / 5)
    shares = training.confidence.shares
    touched = shares.sum(1) > 0
    assert touched[negative].any()
    assert (shares[negative & touched] == torch.tensor([1.0, 0.0])).all()
    assert ((shares[~negative & touched] > 0) & (shares[~negative & touched] < 1)).all()


def test_confidence_is_kept_by_key_and_only_after_the_warm_up() -> None:
    training = objective(model(warmup=0.5, rows=1000))
    step(training, 0.4)
    assert (training.confidence.shares == 0).all()
    found = best(training.prototypes.similarity(torch.eye(2, 128)), torch.ones(2, 2, dtype=torch.bool))
    assert found.sum() == 2
    step(training, 1.0)
    positive = (Y == 1)[batch().bags.seg]
    # phi is .8 at the end: .5 moves to .4 or .6.
    moved = training.confidence.shares[positive]
    assert torch.allclose(moved.sort(1).values, torch.tensor([0.4, 0.6]).expand(len(moved), -1))


def test_rows_without_keys_are_learnt_without_a_memory() -> None:
    training = objective(model())
    for progress in (0.0, 0.9):
        step(training, progress, batch(keys=False))
    assert (training.confidence.shares == 0).all()
    assert training.queue.pushed > 0


def test_prototypes_queue_and_teacher_follow() -> None:
    made = model()
    training = objective(made)
    before = training.teacher.network[1].layers[0].weight.clone()
    with torch.no_grad():
        made.aggregator.head.layers[0].weight.add_(1.0)
    step(training, 0.0)
    after = training.teacher.network[1].layers[0].weight
    assert torch.allclose(after - before, torch.full_like(after, 0.01), atol=1e-6)
    assert torch.allclose(training.prototypes.vectors.norm(dim=1)[training.prototypes.seen], torch.ones(1))
    labels = training.queue.payloads[training.queue.known]
    assert (labels.sum(1) == 1).all()
    assert not any(p.requires_grad for p in training.teacher.parameters())


def test_drawn_rows_are_even_over_classes_and_over_bags_of_a_class() -> None:
    bags = Bags(torch.zeros(500, 1), torch.tensor([0, 100, 200, 300, 400, 403, 500]), None, tuple("abcdef"))
    keep = drawn(LabelledBags(bags, Target(torch.tensor([0, 0, 0, 0, 0, 1]))), 100)
    counts = [int(part.sum()) for part in keep.split(bags.lengths.tolist())]
    assert counts == [10, 10, 10, 10, 3, 50]
    one = drawn(LabelledBags(bags, Target(torch.tensor([0, 0, 0, 0, 0, 1]))), 1)
    assert int(one.sum()) == 6
    assert drawn(LabelledBags(bags, Target(torch.zeros(6, dtype=torch.int64))), 10**6).all()


def test_a_mixed_bag_gives_rows_of_both_classes() -> None:
    given = batch()
    mixed = replace(given, mixture=Mixture(Target(1 - Y), torch.full((4,), 0.5)))
    training = objective(model(negative="none"))
    for progress in (0.0, 0.9):
        step(training, progress, mixed)
    assert torch.isfinite(training.prototypes.vectors).all()


def test_the_official_preset_is_the_code_of_the_authors() -> None:
    made = model(preset="official", dropout=0.0, rows=1000, queue=100)
    assert made.aggregator.calibration is None
    training = objective(made)
    parts = step(training, 0.0)
    h = made.aggregator.project(batch().bags.x)
    feature = mean(h, batch().bags.segments).softmax(1)
    expected = torch.nn.functional.cross_entropy(feature, Y)
    assert torch.allclose(parts["bags"], 0.5 * expected)
    parts["bags"].backward()
    assert made.aggregator.classifier.weight.grad is None
    # In the warm-up only the rows of bags 1 and 3, the positive ones, get into the memories.
    assert int(training.queue.known.sum()) == int(batch().bags.lengths[[1, 3]].sum())
    assert set(step(training, 0.9)) == {"rows", "contrast"}
    assert set(step(objective(model()), 0.9)) == {"rows", "contrast", "bags", "calibration"}


def test_the_calibration_learns_apart() -> None:
    made = model()
    training = objective(made)
    training(batch(), 0.5).parts["calibration"].backward()
    learnt = {name for name, p in made.aggregator.named_parameters() if p.grad is not None}
    assert learnt == {"calibration.log_scale", "calibration.shift"}
    groups = training.parameter_groups(FitSettings(lr=1e-3))
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 0.05]
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))


@pytest.mark.parametrize("kind", ["ordinal", "regression", "survival"])
def test_another_task_is_refused(kind: str) -> None:
    made = model()
    task = type("Other", (), {"kind": kind})()
    with pytest.raises(SettingsError, match=f"task.kind = '{kind}' has none"):
        made.aggregator.objective(made, task, LearningSet(4, 52, Target(Y)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative": 2}, "0 to 1"),
        ({"negative": "yes"}, "takes int or 'auto' or 'none'"),
        ({"rows": 0}, "rows is 1 or more"),
        ({"temperature": 0.0}, "over 0"),
    ],
)
def test_a_wrong_option_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        model(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "max", "layers": 1},
        {"pool": "top", "top_rows": 3, "negative": "none"},
        {"pool": "lse", "negative": 0},
        {"preset": "official"},
    ],
)
def test_other_kinds_keep_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("ins", **{**SMALL, "hidden": 16, "contrast": 8, **options})


@pytest.mark.slow
def test_planted_bags_are_learnt_and_their_witnesses_found(
    features_of: Callable[[PlantedBags], list[Features]],
) -> None:
    planted = make_bags(140, rows=(20, 60), dim=16, witness_rate=0.15, shift=4.0)
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    slides = list(source.names)
    settings = FitSettings(device="cpu", epochs=30, lr=1e-3)
    train, tune, test = source.take(slides[:60]), source.take(slides[60:80]), source.take(slides[80:])
    # The queue of the default costs the most of a step, and these bags have few rows.
    options = {"queue": 512, "rows": 128}
    learnt = fit_bags(
        train, tune, Classification(("no", "yes")), AggregatorSettings(name="ins", options=options), settings
    )
    p = learnt.predict(test)["p_yes"]
    assert roc_auc_score(planted.y[80:], p) > 0.95
    assert ((p > 0.5) == (planted.y[80:] == 1)).mean() > 0.85
    evidence = learnt.output(test.bags(range(len(test)))).evidence
    assert evidence is not None
    rows = np.repeat(planted.y[80:] == 1, test.lengths)
    score = (evidence[:, 1] - evidence[:, 0]).numpy()
    assert roc_auc_score(planted.witness[planted.offsets[80] :][rows], score[rows]) > 0.9
