from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.base.study import FitSettings
from coverslip.mil import Bags, FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target, build_aggregator
from coverslip.mil.methods.dtfd import Dtfd, PseudoBags, scramble
from coverslip.mil.model import ModelCard
from coverslip.nn.segments import Segments, position, total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags

CLASSES = ["a", "b", "c"]


def build(outputs: int = 3, **options: Any) -> Dtfd:
    torch.manual_seed(0)
    method = build_aggregator("dtfd", DIM, outputs, {"hidden": 16, "attention": 8, **options}).double().eval()
    assert isinstance(method, Dtfd)
    return method


def model_of(**options: Any) -> SlideModel:
    card = ModelCard(
        "dtfd", {"hidden": 16, **options}, FeatureOrigin(DIM, "an example"), "classification", {"classes": CLASSES}
    )
    torch.manual_seed(0)
    return SlideModel(card).double()


def step(model: SlideModel, batch: LabelledBags) -> Any:
    learns = LearningSet(4, 52, batch.target)
    objective = model.aggregator.objective(model, model.task, learns)
    assert objective is not None
    return objective.train()(batch, 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pseudo_bags": 1},
        {"distil": "max_s"},
        {"distil": "max_min_s", "rows": 2, "splits": 2},
        {"distil": "max_min_s", "preset": "official"},
    ],
    ids=str,
)
def test_the_contract_is_kept(options: dict[str, Any]) -> None:
    check_aggregator("dtfd", hidden=16, attention=8, **options)


def test_one_pseudo_bag_gives_the_feature_of_abmil() -> None:
    method, abmil = build(pseudo_bags=1), build_aggregator("abmil", DIM, 3, {"hidden": 16, "attention": 8})
    parts = {"projection": "projection", "scores1": "scores", "classifier2": "classifier"}
    state = {tuple(name.split(".", 1)): value for name, value in method.state_dict().items()}
    own = {f"{parts[part]}.{rest}": value for (part, rest), value in state.items() if part in parts}
    abmil.double().eval().load_state_dict(own)
    ours, theirs = method(example_bags()), abmil(example_bags())
    for what in ("embedding", "logits", "attention", "evidence"):
        assert torch.allclose(getattr(ours, what), getattr(theirs, what), rtol=0, atol=1e-12), what


@pytest.mark.parametrize("distil", ["afs", "max_s", "max_min_s"])
@pytest.mark.parametrize("splits", [1, 3])
def test_evidence_adds_up_to_the_logits_without_their_bias(distil: str, splits: int) -> None:
    method, bags = build(distil=distil, splits=splits), example_bags()
    output = method(bags)
    assert output.evidence is not None
    assert torch.allclose(total(output.evidence, bags.segments) + method.classifier2.bias, output.logits, atol=1e-12)


def gated(scores: Any, h: np.ndarray) -> np.ndarray:
    v, u, w = ((layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (scores.v, scores.u, scores.w))
    s = (np.tanh(h @ v[0].T + v[1]) / (1 + np.exp(-(h @ u[0].T + u[1])))) @ w[0].T + w[1]
    return np.exp(s[:, 0]) / np.exp(s[:, 0]).sum()


def slow(method: Dtfd, x: Tensor, turn: list[list[int]], outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """One bag by the formulas: the pseudo bags' logits and the bag's; `turn` has the rows of each pseudo bag."""
    project = method.projection[0]
    w1, c1 = method.classifier1.weight.detach().numpy(), method.classifier1.bias.detach().numpy()
    w2, c2 = method.classifier2.weight.detach().numpy(), method.classifier2.bias.detach().numpy()
    h = np.maximum(x.numpy() @ project.weight.detach().numpy().T + project.bias.detach().numpy(), 0)
    tier1, distilled = [], []
    for rows in turn:
        a = gated(method.scores1, h[rows])
        f = a @ h[rows]
        tier1.append(w1 @ f + c1)
        cam = (a[:, None] * h[rows]) @ w1.T
        p = np.exp(cam) / np.exp(cam).sum(1, keepdims=True)
        columns = [cam[:, 0]] if outputs == 1 else [p[:, 1]] if outputs == 2 else list(p.T)
        for sign in {"afs": [], "max_s": [1], "max_min_s": [1, -1]}[method.distil]:
            for column in columns:
                best = np.argsort(-sign * column, kind="stable")[: method.rows]
                distilled += [h[rows][i] for i in best]
        if method.distil == "afs":
            distilled.append(f)
    d = np.stack(distilled)
    z = gated(method.scores2, d) @ d
    return np.stack(tier1), w2 @ z + c2


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"distil": "max_s"}, {"distil": "max_min_s", "rows": 2}], ids=str)
def test_both_tiers_are_the_formulas_of_the_paper(outputs: int, options: dict[str, Any]) -> None:
    method, bags = build(outputs, **options), example_bags()
    output = method(bags)
    tier1 = output.tier1_logits
    for b, bag in enumerate(bags.unpack()):
        n = len(bag.x)
        keys = scramble(torch.arange(n), 0).numpy()
        order = np.argsort(-keys, kind="stable")
        turn = [sorted(order[p::4].tolist()) for p in range(min(4, n))]
        expected1, expected2 = slow(method, bag.x, turn, outputs)
        assert np.allclose(tier1[b, : len(turn)].detach(), expected1, rtol=0, atol=1e-10)
        assert np.allclose(output.logits[b].detach(), expected2, rtol=0, atol=1e-10)
        # A short bag's pseudo bags are taken in turn until there are four.
        assert torch.equal(tier1[b], tier1[b, [p % len(turn) for p in range(4)]])


def test_pseudo_bags_hold_each_row_once_and_are_of_equal_size() -> None:
    segments = Segments.of_lengths([1, 2, 3, 4, 5, 41])
    keys = torch.rand(56, generator=torch.Generator().manual_seed(0))
    pseudo = PseudoBags.of(segments, keys, 4)
    assert torch.equal(pseudo.order.sort().values, torch.arange(56))
    lengths = pseudo.segments.lengths.unflatten(0, (6, 4))
    assert torch.equal(lengths.sum(1), segments.lengths)
    assert (lengths.max(1).values - lengths.min(1).values <= 1).all()
    assert torch.equal(pseudo.there, lengths > 0)
    # Rows stay in their bag.
    assert torch.equal(segments.ids[pseudo.order], pseudo.segments.ids // 4)


def test_training_draws_a_new_split_and_evaluation_keeps_its_own() -> None:
    method, bags = build(dropout=0.0), example_bags()
    assert torch.equal(method(bags).logits, method(bags).logits)
    method.train()
    torch.manual_seed(1)
    first, second = method(bags).logits, method(bags).logits
    assert not torch.allclose(first[-1], second[-1])
    torch.manual_seed(1)
    assert torch.equal(first, method(bags).logits)


def test_the_fixed_splits_are_even_over_a_slide_and_differ_from_each_other() -> None:
    places = position(Segments.of_lengths([10_000]))
    segments = Segments.of_lengths([10_000])
    of = []
    for number in range(3):
        pseudo = PseudoBags.of(segments, scramble(places, number), 4)
        part = torch.empty(10_000, dtype=torch.int64)
        part[pseudo.order] = pseudo.segments.ids
        of.append(part)
        # Each stretch of a hundred tiles is dealt about evenly, and neighbours do not stay together.
        stretches = torch.stack([(part == p).reshape(100, 100).sum(1) for p in range(4)])
        assert stretches.min() > 8
        assert 0.2 < float((part[1:] == part[:-1]).float().mean()) < 0.3
    assert all(0.2 < float((a == b).float().mean()) < 0.3 for a, b in [(of[0], of[1]), (of[1], of[2])])


@pytest.mark.parametrize("preset", ["fixed", "official"])
def test_the_loss_is_that_of_both_tiers_and_the_presets_differ_in_what_the_second_reaches(preset: str) -> None:
    model = model_of(preset=preset, dropout=0.0, tier1_weight=0.5)
    batch = LabelledBags(example_bags(), Target(torch.tensor([0, 1, 2, 0])))
    torch.manual_seed(3)
    output = step(model, batch)
    torch.manual_seed(3)
    method = model.aggregator
    assert isinstance(method, Dtfd)
    tier1 = method.train()(batch.bags).tier1_logits
    losses = [-tier1[b, p].log_softmax(0)[y] for b, y in enumerate([0, 1, 2, 0]) for p in range(4)]
    assert torch.allclose(output.parts["tier1"].double(), 0.5 * torch.stack(losses).mean(), atol=1e-6)
    assert torch.allclose(output.loss, output.parts["tier1"] + output.parts["task"])
    reached = torch.autograd.grad(
        output.parts["task"], [method.projection[0].weight, method.scores1.w.weight], allow_unused=True
    )
    assert all((g is not None) == (preset == "fixed") for g in reached)


def test_the_tiers_are_two_groups_and_every_parameter_is_in_one() -> None:
    model = model_of(tier2_rate=0.1)
    objective = model.aggregator.objective(model, model.task, LearningSet(4, 52, Target(torch.zeros(4))))
    assert objective is not None
    groups = objective.parameter_groups(FitSettings(lr=1e-3, batch=1))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    method = model.aggregator
    assert isinstance(method, Dtfd)
    assert rates[id(method.classifier1.weight)] == 1e-3
    assert rates[id(method.classifier2.weight)] == pytest.approx(1e-4)


def test_no_pseudo_bag_is_refused() -> None:
    with pytest.raises(SettingsError, match="pseudo_bags, rows and splits are 1 or more"):
        build_aggregator("dtfd", 8, 2, {"pseudo_bags": 0})


def test_equal_rows_share_the_attention_of_their_pseudo_bag_evenly() -> None:
    """Four pseudo bags of two or three rows: each has a quarter, whatever its size."""
    (bag,) = example_bags((1,)).unpack()
    for rows, sizes in ((8, [2]), (10, [2, 3])):
        same = Bags(bag.x.expand(rows, -1), torch.tensor([0, rows]), None, ("same",))
        attention = build_aggregator("dtfd", DIM, 3).double().eval()(same).attention
        assert attention is not None
        counts = [float((attention - 1 / (4 * size)).abs().lt(1e-12).sum()) for size in sizes]
        assert sum(counts) == rows and all(counts)
