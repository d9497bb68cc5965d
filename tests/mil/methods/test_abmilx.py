"""What is true of ABMILX beside the contract: its formula by loops, what is left without A+, landmarks, evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import Bags, build_aggregator, pack
from coverslip.mil.methods.abmilx import AbmilX
from coverslip.nn.segments import softmax, total, weighted_sum
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(**options: int | float | bool | str) -> AbmilX:
    torch.manual_seed(0)
    method = build_aggregator("abmilx", DIM, 3, {"hidden": 16, "heads": 4, **options})
    assert isinstance(method, AbmilX)
    if method.correlation is not None:
        torch.nn.init.constant_(method.correlation.w, 0.7)
    return method.double().eval()


@pytest.mark.parametrize("options", [{"exact_rows": 3, "landmarks": 2}, {"correlation": False, "feed_forward": True}])
def test_every_kind_keeps_the_contract(options: dict[str, int | bool]) -> None:
    check_aggregator("abmilx", **{"hidden": 16, "heads": 2, **options})


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))


def normed(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


@pytest.mark.parametrize("feed_forward", [False, True])
def test_logits_are_the_formula_of_the_paper(feed_forward: bool) -> None:
    method = build(feed_forward=feed_forward)
    (bag,) = example_bags((9,)).unpack()
    p = {name: value.detach().numpy() for name, value in method.named_parameters()}
    x = bag.x.numpy()
    h = gelu(x @ p["projection.0.weight"].T + p["projection.0.bias"]).reshape(9, 4, 4)
    z = []
    for head in range(4):
        own = h[:, head]
        s = [float((p["scores.2.weight"] @ gelu(p["scores.0.weight"] @ row))[0]) for row in own]
        qk = [p["correlation.qk.weight"] @ normed(row) for row in own]
        refined = []
        for i in range(9):
            likeness = np.array([math.exp(qk[i][:4] @ qk[j][4:] / 2) for j in range(9)])
            refined.append(s[i] + 0.7 * sum(likeness[j] / likeness.sum() * s[j] for j in range(9)))
        a = np.exp(refined) / np.exp(refined).sum()
        z.append(sum(a[i] * own[i] for i in range(9)))
    c = p["out.weight"] @ np.concatenate(z) + p["out.bias"]
    if feed_forward:
        wide = gelu(p["feed_forward.1.weight"] @ normed(c) + p["feed_forward.1.bias"])
        c = c + p["feed_forward.3.weight"] @ wide + p["feed_forward.3.bias"]
    logits = p["classifier.weight"] @ normed(c) + p["classifier.bias"]
    assert np.allclose(method(bag).logits[0].detach(), logits, atol=1e-10)


def test_one_head_and_no_weight_on_others_is_attention_pooling() -> None:
    method = build(heads=1)
    assert method.correlation is not None
    torch.nn.init.zeros_(method.correlation.w)
    bags = example_bags()
    h = method.project(bags.x)
    a = softmax(method.scores(h), bags.segments)
    z = weighted_sum(a, h, bags.segments).flatten(1)
    output = method(bags)
    assert torch.allclose(output.logits, method.classifier(method.norm_out(method.out(z))), atol=1e-12)
    assert output.attention is not None
    assert torch.allclose(output.attention, a, atol=1e-12)
    without = build(heads=1, correlation=False)
    without.load_state_dict({name: p for name, p in method.state_dict().items() if "correlation" not in name})
    assert torch.allclose(output.logits, without(bags).logits, atol=1e-12)


def test_other_rows_count_only_with_correlation() -> None:
    """Attention of two rows relative to each other changes with a third row, and without A+ it does not."""
    bag = example_bags((9,))
    fewer = example_bags((9,)).take(torch.arange(9) < 8)
    for correlation in (True, False):
        method = build(correlation=correlation)
        whole, part = method(bag).attention, method(fewer).attention
        assert whole is not None
        assert part is not None
        same = torch.allclose(whole[0] / whole[1], part[0] / part[1], atol=1e-9)
        assert same == (not correlation)


def test_as_many_landmarks_as_rows_are_exact() -> None:
    bags = example_bags()
    exact, through = build()(bags), build(exact_rows=5, landmarks=40)(bags)
    assert torch.allclose(exact.logits, through.logits, atol=1e-12)
    assert not torch.allclose(exact.logits, build(exact_rows=5, landmarks=3)(bags).logits, atol=1e-9)


def test_bags_up_to_exact_rows_are_exact() -> None:
    bags = example_bags((40, 12))
    exact, through = build()(bags), build(exact_rows=12, landmarks=3)(bags)
    assert torch.equal(exact.logits[1], through.logits[1])
    assert not torch.allclose(exact.logits[0], through.logits[0], atol=1e-9)


def test_more_landmarks_are_nearer_to_the_exact_scores() -> None:
    (bag,) = example_bags((400,)).unpack()

    def attention(**options: int) -> torch.Tensor:
        method = build(**options)
        assert method.correlation is not None
        with torch.no_grad():
            method.correlation.qk.weight.mul_(4)  # as they are drawn, every row is as like as every other
            method.scores[2].weight.mul_(20)
            found = method(bag).attention
        assert found is not None
        return found

    exact = attention()
    few, some, many = (float((attention(exact_rows=10, landmarks=m) - exact).abs().mean()) for m in (5, 80, 390))
    assert few > 2 * some > 4 * many


def test_each_row_twice_changes_nothing_and_halves_attention() -> None:
    bags = example_bags()
    twice = pack([Bags(b.x.repeat(2, 1), b.offsets * 2, None, b.slides) for b in bags.unpack()])
    method = build()
    once, doubled = method(bags), method(twice)
    assert torch.allclose(once.logits, doubled.logits, atol=1e-10)
    assert once.attention is not None
    assert doubled.attention is not None
    halves = torch.cat([a[: len(a) // 2] for a in doubled.attention.split(twice.lengths.tolist())])
    assert torch.allclose(once.attention, 2 * halves, atol=1e-10)


def test_evidence_adds_up_to_the_logits_without_their_biases() -> None:
    method = build()
    bags = example_bags()
    with torch.no_grad():
        method.out.bias.zero_()
    output = method(bags)
    assert output.evidence is not None
    rest = method.classifier(method.norm_out.bias)
    assert torch.allclose(total(output.evidence, bags.segments) + rest, output.logits, atol=1e-10)
    assert build(feed_forward=True)(bags).evidence is None


def test_heads_that_do_not_divide_the_hidden_rows_are_refused() -> None:
    with pytest.raises(SettingsError, match="not a multiple of heads"):
        build_aggregator("abmilx", DIM, 2, {"hidden": 10, "heads": 4})
    assert AbmilX(65, 2).width == 136  # 130 numbers, and six more for the eighth head


@pytest.mark.parametrize("feed_forward", [False, True])
def test_the_official_preset_is_ours_on_normed_rows_without_a_bias(feed_forward: bool) -> None:
    official, ours = build(preset="official", feed_forward=feed_forward), build(feed_forward=feed_forward)
    state = official.state_dict()
    assert not [name for name in state if name.endswith("bias")]
    norm = state.pop("projection.0.weight")
    assert torch.equal(norm, torch.ones_like(norm))
    state["projection.0.weight"] = state.pop("projection.1.weight")
    none = {name: torch.zeros_like(value) for name, value in ours.state_dict().items() if name.endswith("bias")}
    ours.load_state_dict({**state, **none})
    bags = example_bags()
    normed = bags.with_x(torch.nn.functional.layer_norm(bags.x, (DIM,)))
    assert torch.allclose(official(bags).logits, ours(normed).logits, rtol=0, atol=1e-12)


def test_the_official_preset_draws_w_around_zero_and_is_as_wide_at_any_width() -> None:
    drawn = []
    for seed in range(40):
        torch.manual_seed(seed)
        method = AbmilX(DIM, 2, preset="official", hidden=8)
        assert method.correlation is not None
        drawn.append(method.correlation.w.item())
    assert min(drawn) < -0.5 < 0.5 < max(drawn)
    assert max(map(abs, drawn)) <= 1
    assert AbmilX(DIM, 2, preset="official").width == 512


def test_the_official_preset_keeps_the_contract() -> None:
    check_aggregator("abmilx", hidden=16, preset="official", feed_forward=True)
