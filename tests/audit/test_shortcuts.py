from __future__ import annotations

import numpy as np
import pytest

from coverslip.audit import confounding, label_from_site, site_from_features, slide_collapse, within_sites
from coverslip.eval.concordance import Contrast
from coverslip.eval.subgroups import FoldRows


def _sites(n: int, seed: int = 0) -> list[str | None]:
    return [f"h{i}" for i in np.random.default_rng(seed).integers(0, 3, n)]


def _tested(score: np.ndarray, y: np.ndarray) -> FoldRows:
    names = np.array([f"p{i}" for i in range(len(y))], dtype=object)
    fold = np.zeros(len(y), np.int64)
    return FoldRows(names, names, fold, y, ("0", "1"), (0, 1), (Contrast(score, y.astype(float)),))


def test_features_that_carry_the_site_tell_it_and_others_do_not() -> None:
    rng = np.random.default_rng(1)
    sites = _sites(120)
    shift = np.array([{"h0": 2.0, "h1": -2.0, "h2": 0.0}[str(s)] for s in sites])
    noise = rng.normal(size=(120, 10))
    carrying = noise + shift[:, None] * (np.arange(10) < 2)
    told, _ = site_from_features(carrying, sites)
    assert told.value is not None and told.value > 0.8
    assert told.chance == pytest.approx(1 / 3)
    untold, auroc = site_from_features(noise, sites)
    assert untold.low is not None and untold.low < 1 / 3 < (untold.high or 0)
    assert auroc.low is not None and auroc.low < 0.5 < (auroc.high or 0)


def test_a_site_that_decides_the_label_is_red_and_one_that_does_not_is_not() -> None:
    sites = _sites(150)
    rng = np.random.default_rng(2)
    tied = np.array([s == "h0" for s in sites]).astype(int) ^ (rng.random(150) < 0.1)
    probe, table = label_from_site(tied, sites), confounding(tied, sites)
    assert probe.red and probe.value is not None and probe.value > 0.8
    assert table["red"] and table["cramers_v"] > 0.6 and table["p"] < 0.001
    free = rng.integers(0, 2, 150)
    probe, table = label_from_site(free, sites), confounding(free, sites)
    assert not probe.red and not table["red"]


def test_chance_is_rarely_taken_for_confounding() -> None:
    rng = np.random.default_rng(3)
    small = [confounding(rng.integers(0, 2, 80), _sites(80, seed), seed=seed)["p"] for seed in range(60)]
    assert np.mean(np.array(small) < 0.05) < 0.15


def test_a_model_that_reads_the_site_is_found_within_sites() -> None:
    sites = _sites(300)
    rng = np.random.default_rng(4)
    y = (rng.random(300) < np.array([{"h0": 0.8, "h1": 0.2, "h2": 0.5}[str(s)] for s in sites])).astype(int)
    score = np.array([{"h0": 0.8, "h1": 0.2, "h2": 0.5}[str(s)] for s in sites]) + rng.normal(0, 0.01, 300)
    found = within_sites(_tested(score, y), sites)
    assert found["sites"] == ["h0", "h1", "h2"]
    assert found["overall"]["value"] > 0.7
    assert found["within"]["low"] < 0.5 < found["within"]["high"]


def test_tiles_that_carry_their_slide_tell_it() -> None:
    rng = np.random.default_rng(5)
    sites: dict[str, str | None] = {f"s{i}": f"h{i % 2}" for i in range(12)}
    apart = {f"s{i}": rng.normal(0, 1, 16) * 2 + rng.normal(size=(16, 16)) for i in range(12)}
    found = slide_collapse(apart, sites)
    assert found["accuracy"] > 0.9
    assert found["within_site"]["chance"] == pytest.approx(1 / 6)
    alike = slide_collapse({f"s{i}": rng.normal(size=(40, 16)) for i in range(12)}, sites)
    assert alike["accuracy"] < 0.25


@pytest.mark.parametrize("sites", [[None] * 12, ["a"] * 12, ["a"] * 11 + ["b"], [f"h{i}" for i in range(12)]])
def test_too_little_to_ask_is_said_and_never_a_crash(sites: list[str | None]) -> None:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 12)
    for probe in site_from_features(rng.normal(size=(12, 4)), sites):
        assert probe.value is None and probe.reason
    one_class = label_from_site(np.zeros(12, int), sites)
    assert one_class.value is None and one_class.reason
    assert confounding(np.zeros(12, int), sites)["reason"]
    within = within_sites(_tested(rng.normal(size=12), y), sites)
    assert within["reason"] if not within["sites"] else within["within"] == within["overall"]
    assert slide_collapse({"a": np.zeros((3, 4))})["accuracy"] is None
    assert slide_collapse({f"s{i}": np.zeros((9, 4)) for i in range(4)})["accuracy"] is not None
