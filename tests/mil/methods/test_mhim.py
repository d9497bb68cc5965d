"""MHIM of both versions: what their masks are, and when their training is the host's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import SettingsError
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import (
    BagOutput,
    BagSource,
    LabelledBags,
    LearningSet,
    SlideModel,
    Target,
    build_aggregator,
    fit_bags,
)
from coverslip.mil.methods.mhim import HighLowRandom, Mhim
from coverslip.mil.methods.mhim_v2 import HighThenSplit, MhimV2
from coverslip.mil.model import FeatureOrigin, ModelCard
from coverslip.mil.parts.masked_teaching import MaskedTeaching
from coverslip.mil.parts.masking import class_score
from coverslip.mil.tasks.classification import Classification
from coverslip.nn.segments import Segments
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags

LENGTHS = [1, 2, 30, 100]
SEGMENTS = Segments.of_lengths(LENGTHS)
BOTH = ("mhim", "mhim_v2")
HOSTS = ("abmil", "dsmil", "transmil")


def seen(heads: int = 1, classes: int = 3) -> BagOutput:
    generator = torch.Generator().manual_seed(0)
    rows = sum(LENGTHS)
    attention = torch.rand(rows, heads, generator=generator)
    evidence = torch.randn(rows, classes, generator=generator)
    return BagOutput(torch.zeros(4, classes), torch.zeros(4, 8), attention, evidence)


def counts(mask: torch.Tensor) -> list[int]:
    return [int(bag.sum()) for bag in mask.split(LENGTHS)]


def objective_of(name: str, **options: Any) -> MaskedTeaching:
    card = ModelCard(name, options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]})
    torch.manual_seed(0)
    model = SlideModel(card)
    made = model.aggregator.objective(model, model.task, LearningSet(4, 52, Target(torch.tensor([0, 1, 2, 0]))))
    assert isinstance(made, MaskedTeaching)
    return made


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", BOTH)
def test_the_output_is_the_hosts(name: str, host: str) -> None:
    made = build_aggregator(name, DIM, 3, {"host": host}).double().eval()
    assert isinstance(made, (Mhim, MhimV2))
    bags = example_bags()
    ours, plain = made(bags), made.host(bags)
    assert torch.equal(ours.logits, plain.logits)
    assert torch.equal(ours.attention, plain.attention)
    assert made.order_matters == made.host.order_matters


NOTHING: dict[str, dict[str, Any]] = {
    "mhim": {"mask_random": 0.0, "mask_low": 0.0, "mask_high": 0.0, "consistency": 0.0, "warmup": 0.0},
    "mhim_v2": {"mask_high": 0.0, "keep_ratio": 1.0, "tokens": 0, "consistency": 0.0, "warmup": 0.0},
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", BOTH)
def test_with_nothing_masked_and_no_consistency_training_is_the_hosts(
    name: str, host: str, source: BagSource, quick: FitSettings
) -> None:
    settings = quick.model_copy(update={"epochs": 2})
    task = Classification(("no", "yes"))
    plain = fit_bags(source, None, task, AggregatorSettings(name=host), settings).state_dict()
    around = AggregatorSettings(name=name, options={**NOTHING[name], "host": host, "teacher_dropout": True})
    masked = fit_bags(source, None, task, around, settings).state_dict()
    for key, value in plain.items():
        assert torch.equal(value, masked[key.replace("aggregator.", "aggregator.host.")]), key


def test_v2_without_recycling_is_v1_with_the_high_mask_alone() -> None:
    output = seen(classes=2)
    score = class_score(output.evidence)
    by_class = HighThenSplit(0.1, 1.0, "stable").draw(output, SEGMENTS, 0.0)
    as_v1 = BagOutput(output.logits, output.embedding, score.unsqueeze(1))
    by_attention = HighLowRandom(0.1, 1.0, 0.0, 0.0).draw(as_v1, SEGMENTS, 0.0)
    assert by_class is not None and by_attention is not None
    # A bag of one row keeps it in both; in one of two rows nothing is left to chance.
    assert torch.equal(by_class.kept, by_attention.kept)
    assert by_class.recycled is None


def test_the_masked_rows_are_the_union_of_three_parts() -> None:
    policy = HighLowRandom(high=0.1, pick=0.5, low=0.2, random=0.3)
    torch.manual_seed(0)
    masks = policy.draw(seen(), SEGMENTS, 0.0)
    assert masks is not None
    masked = ~masks.kept
    lowest = seen().attention[-100:, 0].argsort()[:20]
    assert masked[-100:][lowest].all()
    # Of 100 rows: 30 at random, 20 low, 10 of the 20 highest; overlap makes it fewer.
    assert 40 <= counts(masked)[-1] <= 60
    highest = seen().attention[-100:, 0].argsort(descending=True)[:20]
    assert 10 <= int(masked[-100:][highest].sum()) < 20
    assert all(masked < rows for masked, rows in zip(counts(masked), LENGTHS))


def test_the_high_mask_is_gone_at_the_end() -> None:
    policy = HighLowRandom(high=0.2, pick=1.0, low=0.0, random=0.0)
    masks = [policy.draw(seen(), SEGMENTS, progress) for progress in (0.0, 0.5, 1.0, 1.1)]
    assert [None if m is None else counts(~m.kept)[-1] for m in masks] == [20, 10, None, None]


def test_kept_recycled_and_masked_rows_are_a_partition() -> None:
    output = seen()
    masks = HighThenSplit(0.05, 0.8, "stable").draw(output, SEGMENTS, 0.3)
    assert masks is not None and masks.recycled is not None
    assert not (masks.kept & masks.recycled).any()
    masked = ~(masks.kept | masks.recycled)
    assert counts(masked) == [0, 1, 2, 5]
    assert counts(masks.kept) == [1, 1, 22, 76]
    assert counts(masks.recycled) == [0, 0, 6, 19]
    best = class_score(output.evidence[-100:]).argsort(descending=True)[:5]
    assert masked[-100:][best].all()


def test_both_forms_of_the_score_hide_the_same_rows_where_evidence_is_large() -> None:
    stable, naive = (HighThenSplit(0.1, 1.0, form).draw(seen(), SEGMENTS, 0.0) for form in ("stable", "softmax"))
    assert stable is not None and naive is not None
    assert torch.equal(stable.kept[3:], naive.kept[3:])


@pytest.mark.parametrize("name", BOTH)
def test_single_rows_survive_any_mask(name: str) -> None:
    options = {"mhim": {"mask_random": 1.0, "mask_low": 1.0}, "mhim_v2": {"mask_high": 1.0, "keep_ratio": 0.0}}[name]
    objective = objective_of(name, warmup=0.0, hidden=8, **options).train()
    bags = example_bags((1, 1, 2, 30))
    batch = LabelledBags(bags.with_x(bags.x.float()), Target(torch.tensor([0, 1, 2, 0])))
    step = objective(batch, 0.5)
    step.loss.backward()
    assert torch.isfinite(step.loss)


def test_tokens_carry_what_recycled_rows_say() -> None:
    objective = objective_of("mhim_v2", warmup=0.0, hidden=8, mask_high=0.0, keep_ratio=0.5, consistency=0.0).train()
    bags = example_bags((4, 30))
    x = bags.x.float().requires_grad_()
    objective(LabelledBags(bags.with_x(x), Target(torch.tensor([0, 1]))), 0.5).loss.backward()
    assert x.grad is not None
    # Nothing is masked: kept rows are learnt from, the others by way of the tokens.
    assert x.grad.any(1).all()


def test_queries_move_with_training_and_the_recycler_learns() -> None:
    objective = objective_of("mhim_v2", warmup=0.0, hidden=8).train()
    aggregator = objective.network.get_submodule("aggregator")
    assert isinstance(aggregator, MhimV2) and aggregator.recycler is not None
    before = aggregator.recycler.queries.clone()
    bags = example_bags()
    batch = LabelledBags(bags.with_x(bags.x.float()), Target(torch.tensor([0, 1, 2, 0])))
    for progress in (0.1, 0.2):
        objective(batch, progress).loss.backward()
        objective.after_step(progress)
    assert not torch.equal(before, aggregator.recycler.queries)
    assert all(p.grad is not None and p.grad.any() for p in aggregator.recycler.out.parameters())


def test_presets_differ_where_the_papers_code_is_odd() -> None:
    fixed, official = (build_aggregator("mhim_v2", DIM, 2, {"preset": preset}) for preset in ("fixed", "official"))
    assert isinstance(fixed, MhimV2) and isinstance(official, MhimV2)
    assert (fixed.policy.score, official.policy.score) == ("stable", "softmax")
    assert (fixed.how.dropout, official.how.dropout) == (False, True)
    assert (fixed.how.momentum, official.how.momentum, official.query_momentum) == (None, 0.9997, 0.9999)
    told = build_aggregator("mhim", DIM, 2, {"preset": "official", "momentum": 0.5, "teacher_dropout": False})
    assert isinstance(told, Mhim)
    assert (told.how.momentum, told.how.dropout) == (0.5, False)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mhim", {"host": "dsmil", "mask_low": 0.2, "teacher_dropout": True}),
        ("mhim", {"heads": 3, "warmup": 0.0, "momentum": 0.9, "settles": True}),
        ("mhim_v2", {"host": "dsmil", "preset": "official"}),
        ("mhim_v2", {"tokens": 0, "keep_ratio": 0.2}),
    ],
)
def test_every_kind_keeps_the_contract(name: str, options: dict[str, Any]) -> None:
    check_aggregator(name, hidden=8, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_around_transmil_the_contract_is_kept(name: str) -> None:
    check_aggregator(name, host="transmil")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_high": 1.5}, "mask_high is from 0 to 1"),
        ({"high_pick": 0.0}, "high_pick is above 0"),
        ({"warmup": 1.0}, "warmup is from 0 to below 1"),
        ({"consistency": -1.0}, "consistency is 0 or more"),
        ({"momentum": 2.0}, "momentum is from 0 to 1"),
        ({"host": "mean"}, "takes 'abmil' or 'transmil' or 'dsmil'"),
        ({"hiden": 3}, "Did you mean 'hidden'"),
    ],
)
def test_a_wrong_option_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_aggregator("mhim", DIM, 2, options)


@pytest.mark.parametrize("kind", ["survival", "survival_cox", "regression"])
@pytest.mark.parametrize("name", BOTH)
def test_any_task_trains(name: str, kind: str) -> None:
    arguments = {} if kind == "regression" else {"grid": [1.0, 2.0]}
    card = ModelCard(name, {"warmup": 0.0, "hidden": 8}, FeatureOrigin(DIM, "an example"), kind, arguments)
    model = SlideModel(card)
    times = torch.tensor([0.5, 1.5, 2.5, 3.0])
    target = Target(times, event=None if kind == "regression" else torch.tensor([1, 1, 0, 1]))
    model.task.fit_target(target, ["p", "q", "r", "s"])
    objective = model.aggregator.objective(model, model.task, LearningSet(4, 52, target))
    assert objective is not None
    bags = example_bags()
    step = objective.train()(LabelledBags(bags.with_x(bags.x.float()), target), 0.5)
    step.loss.backward()
    assert torch.isfinite(step.loss)
    assert all(p.grad is not None for p in model.aggregator.host.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("host", ["abmil", "dsmil"])
@pytest.mark.parametrize("name", BOTH)
def test_planted_bags_are_learnt_and_their_witnesses_found(
    name: str, host: str, features_of: Callable[[PlantedBags], list[Features]]
) -> None:
    planted = make_bags(160, rows=(20, 60), dim=16, witness_rate=0.15, shift=4.0)
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    slides = list(source.names)
    around = AggregatorSettings(name=name, options={"host": host})
    settings = FitSettings(device="cpu", epochs=30, lr=1e-3)
    task = Classification(("no", "yes"))
    model = fit_bags(source.take(slides[:80]), source.take(slides[80:100]), task, around, settings)
    test = source.take(slides[100:])
    assert roc_auc_score(planted.y[100:], model.predict(test)["p_yes"]) > 0.95
    evidence = model.output(test.bags(range(len(test)))).evidence
    assert evidence is not None
    rows = np.repeat(planted.y[100:] == 1, test.lengths)
    score = (evidence[:, 1] - evidence[:, 0]).numpy()[rows]
    assert roc_auc_score(planted.witness[planted.offsets[100] :][rows], score) > 0.8


@pytest.mark.parametrize("name", [*BOTH, "ins"])
def test_tuning_does_not_choose_a_model_of_the_warm_up(name: str) -> None:
    planted = make_bags(40, rows=(5, 30), dim=8, witness_rate=0.3, shift=3.0)
    features = [Features(f"s{i:03d}", planted.bag(i).astype(np.float16)) for i in range(40)]
    # Whoever tunes has been told the opposite, so that the first epoch is the best and patience ends at once.
    y = np.concatenate([planted.y[:20], 1 - planted.y[20:]])
    source = BagSource(features, target=Target(torch.from_numpy(y)))
    train, tune = source.take(source.names[:20]), source.take(source.names[20:])
    settings = FitSettings(epochs=10, patience=1, device="cpu", lr=3e-3)
    models = {
        warmup: fit_bags(
            train,
            tune,
            Classification(("no", "yes")),
            AggregatorSettings(name=name, options={"warmup": warmup}),
            settings,
        )
        for warmup in (0.0, 0.4)
    }
    assert models[0.0].card.training["best_epoch"] <= 3, "the test has to tempt"
    assert models[0.4].card.training["best_epoch"] >= 5
