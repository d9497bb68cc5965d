"""The table of sites."""

from __future__ import annotations

import numpy as np

from coverslip.eval import classification_metrics
from coverslip.eval.fold_rows import fold_rows
from coverslip.eval.reduce import Rows, Task, Units, reduce
from coverslip.eval.sites import site_table
from coverslip.eval.subgroups import subgroups

TWO = ("no", "yes")
TASK = Task("classification", "cancer", TWO)


def units(n: int) -> Units:
    p = np.random.default_rng(0).dirichlet(np.ones(2), n)
    ids = np.array([f"u{i}" for i in range(n)])
    return Units(ids, ids, np.arange(n) % 2, p)


def test_a_site_with_too_few_of_a_class_has_counts_and_a_reason() -> None:
    u = units(46)
    sites = {unit: "big" if i < 40 else "small" for i, unit in enumerate(u.ids) if i != 45}
    table = site_table(u, sites, TASK, level="patient", resamples=200, seed=0)
    assert [row["site"] for row in table] == ["big", "not given", "small"]
    big, absent, small = table
    here = u.only(np.arange(46) < 40)
    assert big["auroc"]["value"] == classification_metrics(here.y, here.p, TWO)["auroc"]
    assert big["auroc"]["low"] < big["auroc"]["value"] < big["auroc"]["high"]
    assert big["reason"] is None
    assert (small["patients"], small["auroc"]) == (5, None)
    assert "2 of class yes" in small["reason"]
    assert absent["classes"] == {"no": 0, "yes": 1}


def test_sites_of_times_show_events_and_the_c_index() -> None:
    rng = np.random.default_rng(0)
    y = np.stack([rng.exponential(10, 60), np.arange(60) % 2], axis=1)
    grid = (2.0, 5.0)
    p = np.concatenate([-y[:, :1] + rng.normal(0, 5, (60, 1)), np.full((60, 2), 0.5)], axis=1)
    ids = np.array([f"u{i}" for i in range(60)])
    task = Task("survival", "os", (), ("days", "os"), grid)
    sites = {unit: "a" if i < 52 else "b" for i, unit in enumerate(ids)}
    big, small = site_table(Units(ids, ids, y, p), sites, task, level="patient", resamples=100, seed=0)
    assert big["events"] == {"event": 26, "censored": 26}
    assert big["c_index"]["low"] < big["c_index"]["value"] < big["c_index"]["high"]
    assert small["c_index"] is None and "4 with the event" in small["reason"]


def test_a_site_has_the_interval_of_the_subgroup_and_is_refused_with_it() -> None:
    rng = np.random.default_rng(1)
    y = np.arange(80) % 2
    p = rng.dirichlet(np.ones(2), 80)
    ids = np.array([f"u{i}" for i in range(80)])
    fold = np.arange(80) // 2 % 4
    u = Units(ids, ids, y, p, fold)
    site = np.where(np.arange(80) < 48, "a", np.where(np.arange(80) < 64, "b", "c"))
    table = site_table(u, dict(zip(ids, site)), TASK, level="patient", resamples=100, seed=7)
    audit = subgroups(fold_rows(ids, ids, fold, y, p, TASK), {"site": site})["attributes"][0]["levels"]
    assert [row["auroc"] for row in table] == [level["figure"] for level in audit]
    assert [row["auroc"] is None for row in table] == [False, True, True]
    assert table[1]["reason"] == audit[1]["reason"] == "too few: 8 of class no, under 10"


def test_where_folds_overlap_only_units_of_one_fold_are_ranked() -> None:
    """Models on scales far apart: their mean ranks, but each fold's model ranks perfectly."""
    y, ids = np.arange(60) % 2, np.array([f"u{i}" for i in range(60)])
    parts = []
    for repeat in range(2):
        fold = np.random.default_rng(repeat).permutation(60) % 3
        p = np.clip(0.3 * fold + 0.1 * y + 0.05, 0, 1)
        parts.append((ids, ids, np.full(60, repeat), fold, y, np.stack([1 - p, p], axis=1)))
    rows = Rows(*(np.concatenate(part) for part in zip(*parts)))
    (row,) = site_table(
        reduce(rows, "patient"), {}, TASK, level="patient", resamples=100, seed=0, rows=rows
    )  # fmt: skip
    assert row["auroc"]["value"] == 1 and 0.7 < row["auroc"]["low"] < 1


def test_numbers_of_a_site_are_ranked_within_folds_or_not_at_all() -> None:
    """Models of two folds that rank perfectly, one of them ten too high."""
    y = np.arange(40.0)
    ids, fold = np.array([f"u{i:02}" for i in range(40)]), np.arange(40) % 2
    p = (y + 10 * fold)[:, None]
    task = Task("regression", "amount", ())
    (row,) = site_table(Units(ids, ids, y, p, fold), {}, task, level="patient", resamples=100, seed=0)
    assert row["spearman"]["value"] == 1
    parts = (ids, ids, np.repeat([0, 1], 40), np.concatenate([fold, 1 - fold]), np.tile(y, 2), np.tile(p, (2, 1)))
    rows = Rows(*(np.tile(part, 2) if len(part) == 40 and part.ndim == 1 else part for part in parts))
    (row,) = site_table(reduce(rows, "patient"), {}, task, level="patient", resamples=100, seed=0, rows=rows)
    assert row["spearman"]["value"] is None and "several folds" in row["spearman"]["reason"]
    assert row["mae"]["value"] == 5


def test_average_precision_of_labels_in_a_site_is_within_folds() -> None:
    ids, fold = np.array([f"u{i:02}" for i in range(80)]), np.arange(80) // 40
    y = (np.arange(80) % 2).astype(float)[:, None]
    p = 0.4 * fold[:, None] + 0.2 * y + 0.1
    task = Task("multilabel", "a", ("a",), ("a",))
    (row,) = site_table(Units(ids, ids, y, p, fold), {}, task, level="patient", resamples=100, seed=0)
    assert row["auprc"]["value"] == 1
