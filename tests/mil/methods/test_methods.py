"""What is true of mean, max and ABMIL alone, and what another copy of each row changes in every method."""

from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS
from coverslip.mil import BagOutput, Bags, build_aggregator, pack
from coverslip.mil.methods.abmil import Abmil
from coverslip.mil.methods.max import Max
from coverslip.mil.methods.mean import Mean
from coverslip.nn.segments import maximum, mean, total
from coverslip.testing.aggregators import DIM, example_bags


def build(name: str, **options: int | float | bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_aggregator(name, DIM, 3, options).double().eval()


@pytest.mark.parametrize("heads", [1, 2])
def test_abmil_evidence_adds_up_to_the_logits_without_their_bias(heads: int) -> None:
    method = build("abmil", heads=heads)
    assert isinstance(method, Abmil)
    bags = example_bags()
    output = method(bags)
    assert output.evidence is not None
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, rtol=0, atol=1e-12)


def test_mean_evidence_averages_to_the_logits() -> None:
    bags = example_bags()
    output = build("mean")(bags)
    assert torch.allclose(mean(output.evidence, bags.segments), output.logits, rtol=0, atol=1e-12)


def test_max_evidence_peaks_at_the_logits() -> None:
    bags = example_bags()
    output = build("max")(bags)
    assert torch.allclose(maximum(output.evidence, bags.segments), output.logits, rtol=0, atol=1e-12)


# Methods for which a bag is a set of rows that count by their weights. Around them the hosts' methods are the same.
WEIGHING = (
    *("mean", "max", "abmil", "abmilx", "acmil", "clam_mb", "clam_sb", "dsmil", "gnn_vitcap", "weakstil"),
    *("aem", "mhim", "mhim_v2", "packmil", "scmil"),
)
# What another copy of each row does change: the N - 1 of a variance, the ten top rows, and what an order leads to.
COUNTING = ("varmil", "ins", "dtfd", "transmil", "rrt", "mambamil")


def once_and_twice(name: str) -> tuple[BagOutput, BagOutput, list[int]]:
    """The outputs of the example bags and of the same with each row twice, and the lengths of the latter."""
    bags = example_bags()
    twice = pack([Bags(b.x.repeat(2, 1), b.offsets * 2, None, b.slides) for b in bags.unpack()])
    method = build(name)
    return method(bags), method(twice), twice.lengths.tolist()


def test_every_method_weighs_rows_or_counts_them() -> None:
    assert sorted(WEIGHING + COUNTING) == sorted(AGGREGATORS.names())


@pytest.mark.parametrize("name", WEIGHING)
def test_each_row_twice_changes_nothing_and_halves_attention(name: str) -> None:
    once, doubled, lengths = once_and_twice(name)
    assert torch.allclose(once.logits, doubled.logits, rtol=0, atol=1e-10)
    assert torch.allclose(once.embedding, doubled.embedding, rtol=0, atol=1e-10)
    if once.attention is not None:
        assert doubled.attention is not None
        halves = torch.cat([a[: len(a) // 2] for a in doubled.attention.split(lengths)])
        assert torch.allclose(once.attention, 2 * halves, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", COUNTING)
def test_each_row_twice_changes_what_counts_rows(name: str) -> None:
    once, doubled, _ = once_and_twice(name)
    assert not torch.allclose(once.logits, doubled.logits, rtol=0, atol=1e-10)


def test_abmil_is_the_formula_of_the_paper() -> None:
    method = build("abmil", dropout=0.0)
    assert isinstance(method, Abmil)
    (bag,) = example_bags((6,)).unpack()
    projection, scores = method.projection[0], method.scores
    h = torch.relu(bag.x @ projection.weight.T + projection.bias)
    assert scores.u is not None
    gate = torch.sigmoid(h @ scores.u.weight.T + scores.u.bias)
    s = (torch.tanh(h @ scores.v.weight.T + scores.v.bias) * gate) @ scores.w.weight.T
    a = torch.exp(s) / torch.exp(s).sum()
    z = a.T @ h
    assert torch.allclose(method(bag).logits, z @ method.classifier.weight.T + method.classifier.bias, atol=1e-12)


def test_equal_rows_share_attention_evenly() -> None:
    (bag,) = example_bags((1,)).unpack()
    same = Bags(bag.x.expand(8, -1), torch.tensor([0, 8]), None, ("same",))
    attention = build("abmil")(same).attention
    assert torch.allclose(attention, torch.full_like(attention, 1 / 8))


def test_the_summary_lies_among_the_rows() -> None:
    bags = example_bags()
    method = build("abmil")
    assert isinstance(method, Abmil)
    h = method.projection(bags.x)
    assert (method(bags).embedding <= maximum(h, bags.segments) + 1e-12).all()


def test_narrow_features_get_a_narrower_network() -> None:
    assert Abmil(100, 2).classifier.in_features == 200
    assert Abmil(8, 2).classifier.in_features == 128
    assert Abmil(1536, 2).classifier.in_features == 512
    assert Abmil(100, 2, hidden=64).classifier.in_features == 64
    assert Mean(100, 2).rows.classifier.in_features == Max(100, 2).rows.classifier.in_features == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden": 4}, "no option 'hiden'. Did you mean 'hidden'"),
        ({"hidden": 4.5}, "takes int"),
        ({"gated": 1}, "takes bool"),
        ({"hidden": True}, "takes int"),
        ({"dropout": 7.0}, "cannot be built with dropout = 7.0"),
        ({"hidden": -3}, "cannot be built with hidden = -3"),
    ],
)
def test_a_wrong_option_is_explained(options: dict[str, int | float | bool], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_aggregator("abmil", 8, 2, options)


def test_a_whole_number_serves_where_a_fraction_is_asked() -> None:
    build_aggregator("abmil", 8, 2, {"dropout": 0})


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'abmil'"):
        build_aggregator("abml", 8, 2)
