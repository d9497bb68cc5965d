"""The contract of augments fails for augments that break it, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from coverslip.base.registry import AUGMENTS, Entry
from coverslip.mil import Bags, LabelledBags
from coverslip.mil.augment.contract import Augment
from coverslip.mil.target import Mixture
from coverslip.testing.augments import check_augment


def in_place(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    batch.bags.x.add_(1)
    return batch


def drops_bags(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    return LabelledBags(batch.bags.unpack()[0], batch.target.take(torch.tensor([0]))) if len(batch.bags) > 1 else batch


def lies_about_keys(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    return replace(batch, bags=batch.bags.with_x(batch.bags.x * 2 + 1))


def loses_positions(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    bags = batch.bags
    return replace(batch, bags=Bags(bags.x, bags.offsets, None, bags.slides, bags.keys))


def has_its_own_chance(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    bags = batch.bags
    x = bags.x + float(np.random.default_rng().random())
    return replace(batch, bags=Bags(x, bags.offsets, bags.xy_um, bags.slides))


def mixes_one_bag(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    return replace(batch, mixture=Mixture(batch.target, torch.full((len(batch.bags),), 0.5)))


def shares_too_much(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
    return replace(batch, mixture=Mixture(batch.target, torch.full((len(batch.bags),), 1.5)))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (in_place, "changed in place"),
        (drops_bags, "another number of bags"),
        (lies_about_keys, "not the row of that key"),
        (loses_positions, "positions were lost"),
        (has_its_own_chance, "the same chance gives another batch"),
        (mixes_one_bag, "one bag was mixed with none"),
        (shares_too_much, "shares outside"),
    ],
)
def test_a_broken_augment_is_told_what_it_breaks(
    broken: Callable[..., LabelledBags], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Augment):
        def __call__(self, batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
            return broken(batch, rng)

    monkeypatch.setitem(AUGMENTS.entries, "own", Entry("own", "somewhere", "Broken", licence="MIT"))
    monkeypatch.setattr(AUGMENTS, "load", lambda name: Broken)
    with pytest.raises(AssertionError, match=said):
        check_augment("own")
