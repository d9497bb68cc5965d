"""Every way of weighing and pooling rows against a loop over bags in numpy, and what makes each what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil import build_aggregator
from coverslip.nn.pooling import AttentionPool, Pooling, Weights
from coverslip.nn.segments import Segments, total
from coverslip.testing.aggregators import check_aggregator

LENGTHS = (1, 2, 7, 40)
DIM, BRANCHES = 6, 3
WEIGHTS: tuple[Weights, ...] = ("softmax", "sigmoid")
POOLINGS: tuple[Pooling, ...] = ("sum", "low_rank", "ggem")


def rows(seed: int = 0) -> tuple[Tensor, Tensor, Segments]:
    generator = torch.Generator().manual_seed(seed)
    segments = Segments.of_lengths(LENGTHS)
    scores = torch.randn(sum(LENGTHS), BRANCHES, generator=generator, dtype=torch.float64)
    h = torch.randn(sum(LENGTHS), DIM, generator=generator, dtype=torch.float64).relu()
    return scores, h, segments


def pool(weights: Weights = "softmax", pooling: Pooling = "sum", groups: int = 2) -> AttentionPool:
    torch.manual_seed(0)
    made = AttentionPool(DIM, branches=BRANCHES, weights=weights, pooling=pooling, rank=4, groups=groups).double()
    if pooling == "ggem":
        made.log_power.data = torch.tensor([0.3, 1.5]).double()[:groups]
    return made


def slow(part: AttentionPool, scores: Tensor, h: Tensor, keep: np.ndarray) -> np.ndarray:
    """One bag, one branch, one row at a time."""
    s, x = scores.numpy(), h.numpy()
    found, start = [], 0
    for n in LENGTHS:
        for k in range(BRANCHES):
            a = np.zeros(n)
            for i in range(n):
                raw = np.exp(s[start + i, k]) if part.weights == "softmax" else 1 / (1 + n * np.exp(-s[start + i, k]))
                a[i] = raw * keep[start + i, k]
            if part.weights == "softmax" or part.pooling == "ggem":
                a = a / a.sum()
            bag = x[start : start + n]
            if part.pooling == "ggem":
                power = np.exp(part.log_power.detach().numpy())[[0, 0, 0, 1, 1, 1]]
                found.append((a[:, None] * np.maximum(bag, 1e-6) ** power).sum(0) ** (1 / power))
            else:
                z = sum(a[i] * bag[i] for i in range(n))
                found.append(part.down[k].detach().numpy() @ z if part.pooling == "low_rank" else z)
        start += n
    return np.stack(found).reshape(len(LENGTHS), BRANCHES, -1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_vectors_are_those_of_a_slow_loop(weights: Weights, pooling: Pooling, masked: bool) -> None:
    scores, h, segments = rows()
    keep = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    keep[torch.tensor([0, 1, 3])] = True  # a row of each bag stays
    keep[10] = True
    part = pool(weights, pooling)
    pooled = part(scores, h, segments, keep if masked else None)
    expected = slow(part, scores, h, keep.numpy() if masked else np.ones_like(keep.numpy()))
    np.testing.assert_allclose(pooled.z.detach().numpy(), expected, rtol=0, atol=1e-12)
    sums = total(pooled.attention, segments)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-12)
    if masked:
        assert not pooled.attention[~keep].any()
        assert not pooled.weights[~keep].any()


@pytest.mark.parametrize("pooling", ["sum", "low_rank"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_row_terms_add_up_to_a_classifier_on_the_vectors(weights: Weights, pooling: Pooling) -> None:
    scores, h, segments = rows()
    part = pool(weights, pooling)
    pooled = part(scores, h, segments)
    classifier = torch.randn(5, BRANCHES, part.width, dtype=torch.float64)
    terms = part.row_terms(pooled, h, classifier)
    assert terms is not None
    whole = torch.einsum("bkw,okw->bo", pooled.z, classifier)
    assert torch.allclose(total(terms, segments), whole, atol=1e-12)


def test_a_generalised_mean_has_no_row_terms() -> None:
    scores, h, segments = rows()
    part = pool(pooling="ggem")
    assert part.row_terms(part(scores, h, segments), h, torch.zeros(2, BRANCHES, DIM)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "sigmoid"},
        {"pooling": "ggem"},
        {"pooling": "low_rank", "heads": 3, "rank": 4},
        {"pooling": "ggem", "weights": "sigmoid", "heads": 2, "groups": 1},
    ],
)
def test_abmil_keeps_its_contract_with_every_part(options: dict[str, Any]) -> None:
    check_aggregator("abmil", hidden=16, **options)


def test_power_one_is_the_attention_mean_and_a_large_power_the_maximum() -> None:
    scores, h, segments = rows()
    h = h + 0.1
    mean = pool()(scores, h, segments).z
    part = pool(pooling="ggem", groups=1)
    part.log_power.data = torch.zeros(1, dtype=torch.float64)
    assert torch.allclose(part(scores, h, segments).z, mean, atol=1e-12)
    part.log_power.data = torch.tensor([2000.0], dtype=torch.float64).log()
    highest = torch.stack([bag.max(0).values for bag in h.split(list(LENGTHS))])
    found = part(scores, h, segments).z
    assert torch.allclose(found, highest.unsqueeze(1).expand_as(found), rtol=0.01)


def test_powers_and_rows_of_zeros_have_finite_gradients() -> None:
    scores, h, segments = rows()
    part = pool(pooling="ggem").float()
    h = (h.float() * 0).requires_grad_()
    z = part(scores.float(), h, segments).z
    z.sum().backward()
    assert h.grad is not None and torch.isfinite(h.grad).all()
    assert part.log_power.grad is not None and torch.isfinite(part.log_power.grad).all()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_masked_rows_get_no_gradient_through_their_branch_alone(weights: Weights, pooling: Pooling) -> None:
    scores, h, segments = rows()
    h = (h + 0.1).requires_grad_()
    scores.requires_grad_()
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[12, 0] = False
    pooled = pool(weights, pooling)(scores, h, segments, keep)
    of_scores, of_rows = torch.autograd.grad(pooled.z[:, 0].square().sum(), (scores, h), retain_graph=True)
    assert not of_rows[12].any() and not of_scores[12].any()
    assert of_rows[13].all() and of_scores[13, 0] != 0
    of_scores, of_rows = torch.autograd.grad(pooled.z[:, 1].square().sum(), (scores, h))
    assert of_rows[12].all() and of_scores[12, 1] != 0


def test_sigmoid_rows_do_not_compete() -> None:
    """With scores far over log N each row counts 1, so ten rows weigh ten times one; a softmax would share 1 out."""
    segments = Segments.of_lengths((1, 10))
    scores, h = torch.full((11, 1), 30.0), torch.ones(11, 2)
    z = AttentionPool(2, weights="sigmoid")(scores, h, segments).z
    assert torch.allclose(z[1], 10 * z[0], rtol=1e-5)


def test_even_sigmoid_scores_make_about_a_mean_in_bags_of_any_size() -> None:
    segments = Segments.of_lengths((10, 10_000))
    h = torch.ones(10_010, 1).double()
    z = AttentionPool(1, weights="sigmoid")(torch.zeros_like(h), h, segments).z
    assert torch.allclose(z[:, 0, 0], torch.tensor([10 / 11, 10_000 / 10_001]).double(), atol=1e-6)


def test_attention_holds_where_every_sigmoid_underflows() -> None:
    segments = Segments.of_lengths((4,))
    pooled = AttentionPool(1, weights="sigmoid")(torch.full((4, 1), -1e4), torch.ones(4, 1), segments)
    assert torch.allclose(pooled.attention, torch.full((4, 1), 0.25))


def test_a_rank_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="rank is 1 or more"):
        build_aggregator("abmil", 8, 2, {"pooling": "low_rank", "rank": 0})


def test_more_groups_than_channels_are_refused() -> None:
    with pytest.raises(SettingsError, match="groups must lie between 1 and 16"):
        build_aggregator("abmil", 8, 2, {"pooling": "ggem", "groups": 17, "hidden": 16})
