"""What every augment keeps, and what each of them does to rows and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AUGMENTS
from coverslip.base.study import FitSettings
from coverslip.mil import Bags, BagSource, LabelledBags, Target, build_task, fit_bags
from coverslip.mil.augment.contract import Augment
from coverslip.mil.augment.psemix import PseMix
from coverslip.mil.augment.remix import ReMix, _Prototypes, _shift
from coverslip.mil.augment.smote import Smote
from coverslip.mil.build import build_augment
from coverslip.mil.source import SLIDE_GAP_UM
from coverslip.mil.tasks.classification import Classification
from coverslip.testing.augments import check_augment

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("psemix", {"rate": 1.0}),
    ("psemix", {"rate": 0.0, "otherwise": "part"}),
    ("remix", {"mode": "append", "rate": 1.0}),
    ("remix", {"mode": "replace", "rate": 1.0}),
    ("remix", {"mode": "interpolate", "rate": 1.0}),
    ("remix", {"mode": "covary", "rate": 1.0}),
    ("remix", {"mode": "joint", "rate": 1.0, "prototypes": 3}),
    ("smote", {"rate": 1.0}),
]


def batch_of(lengths: list[int], y: list[int] | None = None, *, dim: int = 4, seed: int = 0) -> LabelledBags:
    """float16 rows whose first column is their key, so that a row is known wherever it turns up."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    x = torch.from_numpy(rng.standard_normal((count, dim)).astype(np.float16))
    x[:, 0] = torch.arange(count).half()
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    xy_um = torch.from_numpy(rng.uniform(0, 5000, (count, 2)).astype(np.float32))
    bags = Bags(x, offsets, xy_um, tuple(f"s{i}" for i in range(len(lengths))), torch.arange(count))
    return LabelledBags(bags, Target(torch.tensor(y if y is not None else [i % 2 for i in range(len(lengths))])))


def made(name: str, options: dict[str, Any]) -> Augment:
    augment = build_augment(name, options)
    assert augment is not None
    return augment


lengths_and_classes = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=6)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in AUGMENTS.names()), *VARIANTS])
def test_every_augment_keeps_the_contract(name: str, options: dict[str, Any]) -> None:
    check_augment(name, **options)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@settings(max_examples=10, deadline=None)
@given(bags=lengths_and_classes, seed=st.integers(0, 10))
def test_every_augment_gives_as_many_bags_of_finite_rows(
    name: str, options: dict[str, Any], bags: list[tuple[int, int]], seed: int
) -> None:
    batch = batch_of([n for n, _ in bags], [y for _, y in bags])
    before = batch.bags.x.clone()
    augment = made(name, options)
    out = augment(batch, np.random.default_rng(seed))
    assert len(out.bags) == len(out.target) == len(bags)
    assert (out.bags.lengths >= 1).all()
    assert torch.isfinite(out.bags.x.float()).all()
    assert out.bags.xy_um is not None
    assert torch.equal(batch.bags.x, before), "the batch was changed in place"
    if out.mixture is not None:
        assert ((out.mixture.share >= 0.5) & (out.mixture.share <= 1)).all()
    # The same chance gives the same batch, whatever the augment has seen before.
    again = augment(batch, np.random.default_rng(seed))
    fresh = made(name, options)(batch, np.random.default_rng(seed))
    for other in (again, fresh):
        assert torch.equal(other.bags.x, out.bags.x)
        assert torch.equal(other.target.y, out.target.y)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_batch_of_one_bag_has_no_partner(name: str, options: dict[str, Any]) -> None:
    batch = batch_of([12], [1])
    out = made(name, options)(batch, np.random.default_rng(0))
    assert out.mixture is None
    assert out.target.y.tolist() == [1]
    if name == "smote":
        assert torch.equal(out.bags.x, batch.bags.x)


@pytest.mark.parametrize("augment", [PseMix(rate=1.0), Smote(rate=1.0)])
def test_rows_that_are_real_keep_bits_keys_and_distances(augment: Augment) -> None:
    batch = batch_of([30, 40, 1, 25], [0, 0, 1, 1])
    out = augment(batch, np.random.default_rng(3))
    assert out.bags.x.dtype == torch.float16
    assert out.bags.keys is not None
    assert torch.equal(out.bags.x, batch.bags.x[out.bags.keys])
    assert any("+" in name for name in out.bags.slides)
    assert batch.bags.xy_um is not None
    for bag in out.bags.unpack():
        assert bag.keys is not None
        assert bag.xy_um is not None
        assert len(set(bag.keys.tolist())) == len(bag.keys), "a row came twice"
        slide = batch.bags.seg[bag.keys]
        for one in slide.unique():
            there = batch.bags.xy_um[bag.keys[slide == one]]
            shift = bag.xy_um[slide == one] - there
            assert torch.allclose(shift, shift[:1].expand_as(shift), atol=1e-2)
        if len(slide.unique()) == 2:
            first, second = (bag.xy_um[slide == one, 0] for one in slide.unique_consecutive())
            assert second.min() >= first.max() + SLIDE_GAP_UM * 0.99


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 90), min_size=2, max_size=5))
def test_psemix_a_targets_share_is_the_share_of_the_content(seed: int, lengths: list[int]) -> None:
    batch = batch_of(lengths, list(range(len(lengths))))
    out = PseMix(rate=1.0)(batch, np.random.default_rng(seed))
    if out.mixture is None:
        return
    for bag, own, other, share in zip(out.bags.unpack(), out.target.y, out.mixture.other.y, out.mixture.share):
        assert bag.keys is not None
        came = torch.bincount(batch.bags.seg[bag.keys], minlength=len(lengths)) / batch.bags.lengths
        # Class i is bag i, so targets say whose rows these are.
        if own == other:
            assert share == 1
            assert int((came > 0).sum()) == 1
        else:
            assert float(share) == pytest.approx(float(came[own] / (came[own] + came[other])), abs=1e-6)
            assert came[own] + came[other] == came.sum()


def test_psemix_where_rows_divide_evenly_the_share_is_a_count_of_pseudo_bags() -> None:
    batch = batch_of([60, 60], [0, 1])
    augment = PseMix(rate=1.0, pseudo_bags=6, phenotypes=1)
    shares = set()
    for seed in range(60):
        out = augment(batch, np.random.default_rng(seed))
        if out.mixture is not None:
            assert out.bags.lengths.tolist() == [60, 60]
            shares |= {round(float(s) * 6, 4) for s in out.mixture.share}
    assert shares == {3.0, 4.0, 5.0}


def test_psemix_each_phenotype_is_dealt_evenly() -> None:
    # Three directions: each pseudo-bag has as many rows of each as any other, but for one.
    angle = torch.tensor([0.0, 0.5, 1.3])
    kind = torch.arange(300) % 3
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 2))).float()
    x = 20 * torch.stack([angle.cos(), angle.sin()], 1)[kind] + noise
    bag = Bags(x, torch.tensor([0, 300]), None, ("s",))
    augment = PseMix(pseudo_bags=7, phenotypes=3)
    assert len({tuple(sorted(set(augment._phenotype(x)[kind == k].tolist()))) for k in range(3)}) == 3
    dealt = augment._deal(bag, np.random.default_rng(0))
    for k in range(3):
        counts = np.bincount(dealt[kind.numpy() == k], minlength=7)
        assert counts.max() - counts.min() <= 1


def test_psemix_mixes_at_its_rate() -> None:
    batch = batch_of([40] * 4)
    mixed = []
    for seed in range(200):
        out = PseMix()(batch, np.random.default_rng(seed))
        mixed += [False] * 4 if out.mixture is None else (out.mixture.share < 1).tolist()
    # All pseudo-bags of one slide, or none, are two of 31 draws of lambda; bags of one step share it.
    assert np.mean(mixed) == pytest.approx(0.4 * 29 / 31, abs=0.08)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), bags=lengths_and_classes)
def test_smote_a_bag_is_half_of_two_of_its_class(seed: int, bags: list[tuple[int, int]]) -> None:
    y = [c for _, c in bags]
    batch = batch_of([n for n, _ in bags], y)
    out = Smote(rate=1.0)(batch, np.random.default_rng(seed))
    assert torch.equal(out.target.y, batch.target.y)
    for place, bag in enumerate(out.bags.unpack()):
        assert bag.keys is not None
        came = torch.bincount(batch.bags.seg[bag.keys], minlength=len(bags))
        if y.count(y[place]) == 1:
            assert came[place] == batch.bags.lengths[place]
            continue
        assert all(y[int(s)] == y[place] for s in came.nonzero())
        assert int((came > 0).sum()) == 2
        assert torch.equal(came[came > 0], (batch.bags.lengths[came > 0] + 1) // 2)


def blobs(seed: int, shift: float) -> torch.Tensor:
    """Rows of three kinds, far from each other, the same kinds in every bag but for a shift."""
    rng = np.random.default_rng(seed)
    centres = np.array([[30.0, 0, 0], [0, 30, 0], [0, 0, 30]])
    return torch.from_numpy((np.repeat(centres, 20, 0) + rng.standard_normal((60, 3)) + shift).astype(np.float32))


def two_of_a_class() -> LabelledBags:
    x = torch.cat([blobs(0, 0.0), blobs(1, 5.0)])
    return LabelledBags(Bags(x, torch.tensor([0, 60, 120]), None, ("a", "b")), Target(torch.tensor([1, 1])))


def means(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(3, 20, 3).mean(1)


@pytest.mark.parametrize("mode", ["append", "replace", "interpolate", "covary"])
def test_remix_rows_are_what_its_mode_says(mode: Any) -> None:
    batch = two_of_a_class()
    out = ReMix(prototypes=3, mode=mode, rate=1.0)(batch, np.random.default_rng(5)).bags
    assert out.keys is None
    a, b = means(batch.bags.x[:60]), means(batch.bags.x[60:])
    assert out.lengths.tolist() == ([3, 3] if mode == "replace" else [6, 6])
    first = out.unpack()[0].x
    near = torch.cdist(first, torch.cat([a, b])).argmin(1)
    if mode == "replace":
        assert sorted(near.tolist()) == [3, 4, 5]
        assert torch.allclose(first, b[near - 3], atol=1e-4)
        return
    own = near[:3]
    assert torch.allclose(first[:3], a[own], atol=1e-4)
    if mode == "append":
        assert torch.allclose(first[3:], b[own], atol=1e-4)
    elif mode == "interpolate":
        share = (first[3:] - a[own]).norm(dim=1) / (b[own] - a[own]).norm(dim=1)
        assert torch.allclose(share, share[:1].expand(3), atol=1e-4), "one strength a bag"
        assert torch.allclose(first[3:], torch.lerp(a[own], b[own], float(share[0])), atol=1e-4), "off the segment"
    else:
        assert ((first[3:] - first[:3]).norm(dim=1) > 0).all()
        assert ((first[3:] - first[:3]).norm(dim=1) < 8).all(), "a shift as wide as the bag, not as a cluster"


def test_remix_a_shift_has_the_covariance_of_its_cluster() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((50, 2)) @ np.array([[3.0, 0], [1, 0.5]])).float()
    bag = Bags(x, torch.tensor([0, 50]), None, ("a",))
    reduced = _Prototypes(x.mean(0, keepdim=True), None, torch.zeros(50, dtype=torch.int64))
    draws = torch.stack([_shift(bag, reduced, 0, rng) for _ in range(4000)]).numpy()
    assert np.allclose(draws.mean(0), 0, atol=0.15)
    assert np.allclose(np.cov(draws.T), np.cov(x.numpy().T), rtol=0.1, atol=0.1)


def test_distances_are_measured_in_standard_deviations_once_they_are_known() -> None:
    # The telling column is small; a loud one says nothing.
    rng = np.random.default_rng(0)
    telling = np.repeat([0.0, 1.0], 50)
    x = torch.from_numpy(np.stack([telling, rng.uniform(-1e4, 1e4, 100)], 1)).float()
    bag = Bags(x, torch.tensor([0, 100]), None, ("a",))
    assert ReMix(prototypes=2)._reduced(bag).rows[:, 0].diff().abs() < 0.5
    learnt = ReMix(prototypes=2)
    learnt.learn(x.mean(0), torch.tensor([0.01, 1e4]))
    assert learnt._reduced(bag).rows[:, 0].diff().abs() == pytest.approx(1.0)


def test_wrong_options_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match=r"psemix has no option 'rat'.*Did you mean 'rate'"):
        build_augment("psemix", {"rat": 0.4})
    with pytest.raises(SettingsError, match=r"remix takes 'append' or 'replace'"):
        build_augment("remix", {"mode": "swap"})
    with pytest.raises(SettingsError, match="without an augment"):
        build_augment("none", {"rate": 0.4})
    with pytest.raises(SettingsError, match=r"no augment 'psmix'.*psemix"):
        build_augment("psmix", {})
    for name, options in (("psemix", {"rate": 1.5}), ("remix", {"prototypes": 0}), ("smote", {"rate": -0.1})):
        with pytest.raises(SettingsError, match="augment_options"):
            build_augment(name, options)
    assert build_augment("none", {}) is None


@pytest.mark.parametrize("name", ["remix", "smote"])
def test_partners_of_a_class_need_classes(name: str, source: BagSource, quick: FitSettings) -> None:
    numbers = source.with_target(Target(torch.arange(24).float()))
    with pytest.raises(SettingsError, match=r"mixes bags of one class; a regression target has no classes"):
        fit_bags(numbers, None, build_task("regression", {}), "mean", quick.model_copy(update={"augment": name}))


def test_psemix_mixes_numbers_too(source: BagSource, quick: FitSettings) -> None:
    numbers = source.with_target(Target(torch.arange(24).float()))
    mixed, plain = (
        fit_bags(numbers, None, build_task("regression", {}), "mean", quick.model_copy(update={"augment": augment}))
        for augment in ("psemix", "none")
    )
    losses = [[row["loss"] for row in model.card.training["history"]] for model in (mixed, plain)]
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


def test_a_step_has_bags_enough_for_partners(source: BagSource, quick: FitSettings) -> None:
    few = quick.model_copy(update={"augment": "smote", "batch": None, "epochs": 1})
    model = fit_bags(source, None, Classification(("no", "yes")), "mean", few)
    assert model.card.training["settings"]["batch"] == 4
    with pytest.raises(SettingsError, match=r"fit.batch = 1: smote compares the bags of one step, and needs 4"):
        fit_bags(source, None, Classification(("no", "yes")), "mean", few.model_copy(update={"batch": 1}))


def test_every_augment_says_its_licence() -> None:
    assert {AUGMENTS.entry(name).licence for name in AUGMENTS.names()} == {"Apache-2.0"}


def test_evaluation_meets_no_augment(source: BagSource, quick: FitSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    call: Callable[..., LabelledBags] = Smote.__call__

    def watched(self: Smote, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        seen.append(batch.bags.slides)
        return call(self, batch, rng)

    monkeypatch.setattr(Smote, "__call__", watched)
    names = list(source.names)
    settings_ = quick.model_copy(update={"augment": "smote"})
    fit_bags(source.take(names[:16]), source.take(names[16:]), Classification(("no", "yes")), "mean", settings_)
    assert {name for batch in seen for name in batch} == set(names[:16])


def test_a_model_of_prototypes_predicts_from_all_rows(source: BagSource, quick: FitSettings) -> None:
    reduced = quick.model_copy(update={"augment": "remix"})
    model = fit_bags(source, None, Classification(("no", "yes")), "abmil", reduced)
    attention = model.output(source.bags([0, 1])).attention
    assert attention is not None
    assert len(attention) == sum(source.lengths[:2])
