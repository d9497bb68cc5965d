"""The table of sites."""

from __future__ import annotations

import numpy as np

from coverslip.eval import classification_metrics
from coverslip.eval.reduce import Task, Units
from coverslip.eval.sites import site_table

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
