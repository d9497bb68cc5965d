from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.eval.slices import attribute_slices, clusters, error_slices

NAMES = [f"u{i}" for i in range(120)]


def _blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1, 2, 3], 30)
    return rng.normal(size=(4, 12))[kind] * 4 + rng.normal(size=(120, 12)), kind


def test_a_look_in_which_the_model_fails_is_the_first_finding() -> None:
    x, kind = _blobs()
    rng = np.random.default_rng(1)
    error = np.clip(rng.normal(0.2, 0.1, 120) + 0.3 * (kind == 2), 0, 1)
    found = error_slices(error, np.tile([0, 1], 60), NAMES, clusters(x))["slices"]
    assert found[0]["finding"]
    assert found[0]["kind"] == "cluster"
    worst = {f"u{i}" for i in np.flatnonzero(kind == 2)}
    assert set(found[0]["examples"]) <= worst
    assert found[0]["shrunk"] < found[0]["excess"]


def test_errors_without_a_pattern_are_no_finding() -> None:
    claimed = 0
    for seed in range(8):
        x, _ = _blobs(seed)
        rng = np.random.default_rng(seed)
        groups = [*clusters(x), *attribute_slices({"a": rng.choice(list("abc"), 120), "n": rng.normal(size=120)})]
        found = error_slices(rng.random(120), np.tile([0, 1], 60), NAMES, groups, seed=seed)["slices"]
        claimed += any(one["finding"] for one in found)
    assert claimed <= 2  # 5 % of 8 is less than 1


def test_a_rare_class_that_is_hard_is_no_slice_of_its_own() -> None:
    y = (np.arange(120) < 20).astype(int)
    error = np.where(y == 1, 0.8, 0.1) + np.random.default_rng(0).normal(0, 0.02, 120)
    groups = attribute_slices({"class": y.astype(str)})
    assert not any(one["finding"] for one in error_slices(error, y, NAMES, groups)["slices"])


@given(n=st.integers(1, 12), same=st.booleans())
@settings(max_examples=25, deadline=None)
def test_few_units_or_equal_errors_are_told(n: int, same: bool) -> None:
    error = np.full(n, 0.5) if same else np.linspace(0, 1, n)
    x = np.random.default_rng(0).normal(size=(n, 3))
    found = error_slices(error, np.zeros(n, int), NAMES[:n], clusters(x))
    assert (found["slices"] == [] and found["reason"]) or found["reason"] is None


def test_the_same_seed_gives_the_same_clusters() -> None:
    x, _ = _blobs()
    one, other = clusters(x, seed=3), clusters(x, seed=3)
    assert all((a.members == b.members).all() for a, b in zip(one, other))
