"""VarMIL against its formula in numpy, and where the variance has to vanish."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import Bags, build_aggregator
from coverslip.mil.methods.varmil import VarMil
from coverslip.nn.segments import total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(**options: int | float | str | bool | None) -> VarMil:
    torch.manual_seed(0)
    method = (
        build_aggregator("varmil", DIM, 3, {k: v for k, v in {"hidden": 16, **options}.items() if v is not None})
        .double()
        .eval()
    )
    assert isinstance(method, VarMil)
    return method


@pytest.mark.parametrize("options", [{"weights": "sigmoid"}, {"gated": False, "hidden": 8}])
def test_every_kind_keeps_the_contract(options: dict[str, int | bool | str]) -> None:
    check_aggregator("varmil", **options)


def test_logits_are_the_formula() -> None:
    method, bags = build(), example_bags()
    w, c = (p.detach().numpy() for p in method.classifier.parameters())
    expected = []
    for bag in bags.unpack():
        h = method.project(bag.x).detach().numpy()
        s = method.scores(method.project(bag.x)).detach().numpy()[:, 0]
        a = np.exp(s) / np.exp(s).sum()
        n = len(a)
        m = sum(a[i] * h[i] for i in range(n))
        v = 0 * m if n == 1 else n / (n - 1) * sum(a[i] * (h[i] - m) ** 2 for i in range(n))
        expected.append(w @ np.concatenate([m, v]) + c)
    np.testing.assert_allclose(method(bags).logits.detach().numpy(), np.stack(expected), rtol=0, atol=1e-12)


def test_even_attention_gives_the_unbiased_variance() -> None:
    method, bags = build(), example_bags()
    method.scores.w.weight.data.zero_()
    h = method.project(bags.x)
    of_bag = torch.stack([rows.var(0) if len(rows) > 1 else 0 * rows[0] for rows in h.split(bags.lengths.tolist())])
    assert torch.allclose(method(bags).embedding[:, 16:], of_bag, atol=1e-12)


def test_equal_rows_and_a_single_row_have_no_variance() -> None:
    (bag,) = example_bags((1,)).unpack()
    same = Bags(bag.x.expand(8, -1), torch.tensor([0, 8]), None, ("same",))
    method = build()
    assert not method(bag).embedding[:, 16:].any()
    assert method(same).embedding[:, 16:].abs().max() < 1e-20


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
def test_evidence_adds_up_to_the_logits_without_their_bias(weights: str) -> None:
    method, bags = build(weights=weights), example_bags()
    output = method(bags)
    assert output.evidence is not None
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, atol=1e-12)


def test_the_official_preset_has_both_moments_of_features_and_counts_rows_that_weigh() -> None:
    method = build(preset="official", hidden=None)
    assert not list(method.projection.parameters())
    assert method.scores.u is None
    (bag,) = example_bags((9,)).unpack()
    with torch.no_grad():
        method.scores.w.weight.mul_(3000)  # most weights underflow, in float64 too
    output = method(bag)
    a, x = output.attention.detach().numpy()[:, 0], bag.x.numpy()
    counted = np.count_nonzero(a)
    assert 2 <= counted < 9
    m = a @ x
    v = counted / (counted - 1) * (a @ (x - m) ** 2)
    np.testing.assert_allclose(output.embedding[0].detach(), np.concatenate([m, v]), rtol=0, atol=1e-10)
    assert method.train()(bag).logits.equal(output.logits)  # no dropout


def test_the_official_preset_has_no_hidden_rows() -> None:
    with pytest.raises(SettingsError, match="leave hidden out"):
        build(preset="official", hidden=8)


def test_the_official_preset_keeps_the_contract() -> None:
    check_aggregator("varmil", preset="official")
