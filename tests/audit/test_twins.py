from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coverslip.audit import audit_cohorts, audit_split, feature_twins, sketch
from coverslip.cohort import Fold, Split

Slides = dict[str, np.ndarray]


def _slides(count: int, seed: int, tiles: int = 50, dim: int = 24) -> Slides:
    """Slides with a stain of their own and tiles that spread around it."""
    rng = np.random.default_rng(seed)
    return {
        f"s{i:02}": (rng.normal(0, 0.7, dim) + rng.normal(0, 1, (tiles + 3 * i, dim))).astype(np.float32)
        for i in range(count)
    }


def _twins(slides: Slides) -> tuple[tuple[str, str], ...]:
    return feature_twins({name: sketch(x).mean for name, x in slides.items()}, lambda name: slides[name])


@given(seed=st.integers(0, 200), count=st.integers(3, 20))
@settings(max_examples=40, deadline=None)
def test_slides_of_their_own_raise_no_alarm(seed: int, count: int) -> None:
    assert _twins(_slides(count, seed)) == ()


@given(
    seed=st.integers(0, 200),
    how=st.sampled_from(["copy", "shuffled", "half precision", "two thirds"]),
    places=st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1]),
)
@example(seed=71, how="two thirds", places=(0, 2))  # so few tiles that the means differ
@settings(max_examples=40, deadline=None)
def test_a_planted_copy_is_found_and_nothing_else(seed: int, how: str, places: tuple[int, int]) -> None:
    slides = _slides(10, seed)
    one, other = sorted(f"s{i:02}" for i in places)
    x = slides[one]
    rng = np.random.default_rng(seed)
    slides[other] = {
        "copy": x,
        "shuffled": rng.permutation(x),
        "half precision": x.astype(np.float16),
        "two thirds": x[: 2 * len(x) // 3],
    }[how]
    assert _twins(slides) == ((one, other),)


@given(sides=st.lists(st.integers(0, 2), min_size=8, max_size=8).filter(lambda s: len(set(s)) == 3))
@settings(max_examples=30, deadline=None)
def test_equal_features_leak_where_they_lie_on_two_sides_and_only_there(sides: list[int]) -> None:
    names = [f"s{i:02}" for i in range(8)]
    sets = [tuple(n for n, side in zip(names, sides) if side == k) for k in range(3)]
    split = Split((Fold(0, 0, *sets),), {n: f"p{n}" for n in names}, "x")
    found = audit_split(split, features=[("s00", "s07")])
    assert [one.code for one in found] == (["feature_leak"] if sides[0] != sides[7] else [])


def test_the_same_features_in_another_cohort_are_told() -> None:
    known, new = _slides(6, 1), _slides(5, 2)
    new["copy"] = known["s03"]
    pairs = feature_twins(
        {n: sketch(x).mean for n, x in known.items()},
        known.__getitem__,
        {n: sketch(x).mean for n, x in new.items()},
        new.__getitem__,
    )
    assert pairs == (("s03", "copy"),)
    (found,) = audit_cohorts({n: n for n in known}, {f"n{n}": f"n{n}" for n in new}, features=pairs)
    assert (found.code, found.cases) == ("shared_features", ("copy is s03",))


def test_features_of_other_widths_and_single_tiles_are_no_twins() -> None:
    assert feature_twins({"a": np.zeros(4)}, dict.__getitem__, {"b": np.zeros(5)}, dict.__getitem__) == ()
    x = np.ones((1, 4), np.float32)
    rows = {"a": x, "b": x, "c": 2 * x}
    assert _twins(rows) == ()
