"""The contract of augments as a test: `check_augment(name)` fails with a sentence where an augment breaks it.

from coverslip.testing.augments import check_augment

def test_my_augment_keeps_the_contract():
    check_augment("my_augment", rate=1.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coverslip.base.registry import AUGMENTS
from coverslip.mil import Bags, LabelledBags, Target, build_augment

# Bags of one row, batches of one bag, a class alone, all of one class.
BATCHES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((1,), (0,)),
    ((70,), (1,)),
    ((1, 1), (0, 0)),
    ((1, 2, 40, 9), (0, 1, 1, 0)),
    ((12, 3, 25), (0, 1, 2)),
    ((60, 31, 5, 1, 17), (1, 1, 1, 1, 1)),
)


def check_augment(name: str, **options: Any) -> None:
    """Nothing, where the augment keeps its contract; an AssertionError that says what it breaks otherwise."""
    assert AUGMENTS.entry(name).licence, f"{name}: its entry says no licence"
    for lengths, classes in BATCHES:
        batch = example_batch(lengths, classes)
        for seed in range(5):
            _check_batch(name, options, batch, seed)


def example_batch(lengths: Sequence[int], classes: Sequence[int], *, dim: int = 4) -> LabelledBags:
    """Bags of float16 rows with keys and positions; the first number of a row is its key."""
    rng = np.random.default_rng(0)
    count = sum(lengths)
    x = torch.from_numpy(rng.standard_normal((count, dim)).astype(np.float16))
    x[:, 0] = torch.arange(count).half()
    xy_um = torch.from_numpy(rng.uniform(0, 5000, (count, 2)).astype(np.float32))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    bags = Bags(x, offsets, xy_um, tuple(f"bag{i}" for i in range(len(lengths))), torch.arange(count))
    return LabelledBags(bags, Target(torch.tensor(list(classes))))


def _check_batch(name: str, options: dict[str, Any], batch: LabelledBags, seed: int) -> None:
    augment = build_augment(name, options)
    assert augment is not None
    before = batch.bags.x.clone()
    out = augment(batch, np.random.default_rng(seed))
    assert torch.equal(batch.bags.x, before), "the batch was changed in place"
    assert len(out.bags) == len(out.target) == len(batch.bags), "another number of bags"
    assert bool((out.bags.lengths >= 1).all()), "a bag without rows"
    assert torch.isfinite(out.bags.x.float()).all(), "rows hold NaN or infinity"
    assert out.bags.xy_um is not None, "positions were lost"
    if out.bags.keys is not None:
        assert torch.equal(out.bags.x, batch.bags.x[out.bags.keys]), "a row with a key is not the row of that key"
    if out.mixture is not None:
        share = out.mixture.share
        assert len(share) == len(out.mixture.other) == len(out.bags), "a mixture of another number of bags"
        assert bool(((share >= 0) & (share <= 1)).all()), "shares outside [0, 1]"
    if len(batch.bags) == 1:
        assert out.mixture is None, "one bag was mixed with none"
        assert torch.equal(out.target.y, batch.target.y), "one bag has another target"
    again = augment(batch, np.random.default_rng(seed))
    other = build_augment(name, options)
    assert other is not None
    for repeated in (again, other(batch, np.random.default_rng(seed))):
        assert all(map(_equal, _values(out), _values(repeated))), "the same chance gives another batch"


def _values(batch: LabelledBags) -> list[Tensor | None]:
    return [batch.bags.x, batch.bags.offsets, batch.bags.xy_um, batch.bags.keys, batch.target.y]


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is None and b is None if a is None or b is None else torch.equal(a, b)
