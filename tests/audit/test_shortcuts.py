from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway

from coverslip.audit import (
    ask_sites,
    confounding,
    explained_by_site,
    label_from_site,
    number_from_site,
    risk_from_site,
    site_from_features,
    sites_part,
    slide_collapse,
    within_sites,
)
from coverslip.eval.concordance import Contrast
from coverslip.eval.fold_rows import FoldRows, fold_rows
from coverslip.eval.truth import Task


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


def _followed(hazard: dict[str, float], until: dict[str, float], n: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    sites = rng.choice(sorted(hazard), n)
    time = rng.exponential([1 / hazard[s] for s in sites])
    end = np.array([until[s] for s in sites]) * rng.uniform(0.5, 1, n)
    return np.minimum(time, end), (time <= end).astype(int), sites


def test_length_of_follow_up_is_not_taken_for_a_site_that_tells_the_outcome() -> None:
    alike, until = {"a": 0.1, "b": 0.1, "c": 0.1}, {"a": 1.5, "b": 6.0, "c": 30.0}
    reds, small, values = 0, 0, []
    for seed in range(20):
        time, event, sites = _followed(alike, until, 240, seed)
        told, parts = risk_from_site(time, event, list(sites), seed=seed), sites_part(time, event, list(sites))
        assert confounding(event, list(sites))["red"]  # events against sites would be red each time
        reds, small = reds + told.red, small + (parts["p"] < 0.05)
        values.append(told.value)
    assert reds == 0 and small <= 3
    assert 0.4 < np.mean(values) < 0.55


def test_a_site_whose_patients_die_sooner_is_red() -> None:
    time, event, sites = _followed({"a": 1.0, "b": 0.05, "c": 0.05}, {"a": 5.0, "b": 5.0, "c": 5.0}, 240, 0)
    told, parts = risk_from_site(time, event, list(sites)), sites_part(time, event, list(sites))
    assert told.red and told.metric == "c_index" and told.value is not None and told.value > 0.7
    assert parts["p"] < 0.001 and parts["cramers_v"] is None and not parts["red"]


@pytest.mark.parametrize("sites", [[None] * 12, ["a"] * 12, ["a"] * 11 + ["b"], [f"h{i}" for i in range(12)]])
@pytest.mark.parametrize("events", [0, 1, 12])
def test_few_times_are_said_and_never_a_crash(sites: list[str | None], events: int) -> None:
    time = np.arange(1.0, 13)
    told = risk_from_site(time, (np.arange(12) < events).astype(int), sites)
    assert told.red is False and (told.value is not None or told.reason)
    assert sites_part(time, (np.arange(12) < events).astype(int), sites)["reason"]


def test_slides_of_one_patient_do_not_narrow_the_collapse() -> None:
    rng = np.random.default_rng(7)
    tiles = {}
    for i in range(12):
        share = 0.2 + 0.6 * (i // 4 % 3) / 2  # patients differ in how much their slides stand out
        tiles[f"s{i:02}"] = rng.normal(0, 1, 16) * 2 * share + rng.normal(size=(20, 16))
    apart, together = slide_collapse(tiles), slide_collapse(tiles, None, {f"s{i:02}": f"p{i // 4}" for i in range(12)})
    assert (apart["patients"], together["patients"]) == (12, 3)
    assert together["high"] - together["low"] > apart["high"] - apart["low"]
    assert slide_collapse(tiles, None, dict.fromkeys(tiles, "p"))["low"] is None


def test_a_number_that_the_site_shifts_is_red_and_one_that_it_does_not_is_not() -> None:
    sites = _sites(120)
    rng = np.random.default_rng(6)
    shift = np.array([{"h0": 2.0, "h1": -2.0, "h2": 0.0}[str(s)] for s in sites])
    noise = rng.normal(size=120)
    told, share = number_from_site(shift + noise, sites), explained_by_site(shift + noise, sites)
    expected = shift.var() / (shift.var() + noise.var())
    assert told.red and told.metric == "r2" and told.value == pytest.approx(expected, abs=0.06)
    assert told.low is not None and told.low < told.value < (told.high or 0)
    assert share["red"] and share["explained"] == pytest.approx(expected, abs=0.06) and share["p"] < 0.001
    told, share = number_from_site(noise, sites), explained_by_site(noise, sites)
    assert not told.red and told.value is not None and told.value < 0.05
    assert not share["red"] and share["explained"] < 0.05 and share["p"] > 0.01


def test_the_share_between_sites_is_that_of_an_analysis_of_variance() -> None:
    y = np.array([1.0, 2, 3, 4, 6, 8, 5, 7, 12])
    sites = [*"aaabbbccc"]
    within = sum(((g - g.mean()) ** 2).sum() for g in y.reshape(3, 3))
    total = ((y - y.mean()) ** 2).sum()
    assert explained_by_site(y, sites)["explained"] == pytest.approx(1 - (within / 6) / (total / 8))
    # Shuffles and the F test agree about where they should.
    assert explained_by_site(y, sites)["p"] == pytest.approx(f_oneway(*y.reshape(3, 3)).pvalue, abs=0.02)


@pytest.mark.parametrize(
    ("y", "sites", "reason"),
    [
        (np.arange(12.0), ["a"] * 12, "one site"),
        (np.full(12, 3.0), ["a", "b"] * 6, ""),
        (np.arange(4.0), ["a", "b"] * 2, "under 10"),
        (np.arange(12.0), [None] * 12, "one site"),
    ],
)
def test_numbers_that_cannot_be_asked_have_a_reason(y: np.ndarray, sites: list[str | None], reason: str) -> None:
    told = number_from_site(y, sites)
    assert told.value is None and reason in str(told.reason) and told.reason and not told.red
    share = explained_by_site(y, sites)
    assert not share["red"] and (share["explained"] is not None or share["reason"])


def _labels(n: int) -> tuple[FoldRows, list[str | None]]:
    """Two labels: the site tells the first, chance the second, which a third of the patients do not know."""
    rng = np.random.default_rng(7)
    sites = _sites(n)
    y = np.stack([[float(s == "h0") for s in sites], rng.integers(0, 2, n).astype(float)], axis=1)
    y[:, 0] = np.where(rng.random(n) < 0.15, 1 - y[:, 0], y[:, 0])
    y[::3, 1] = np.nan
    names = np.array([f"p{i}" for i in range(n)], dtype=object)
    task = Task("multilabel", "a, b", ("a", "b"), ("a", "b"))
    return fold_rows(names, names, np.zeros(n, np.int64), y, np.nan_to_num(y, nan=0.5), task), sites


def test_of_several_labels_each_is_asked_by_those_who_know_it() -> None:
    tested, sites = _labels(150)
    found = ask_sites(tested, np.random.default_rng(8).normal(size=(150, 4)), sites, resamples=100)
    assert list(found["labels"]) == ["a", "b"]
    a, b = found["labels"].values()
    assert a["label_from_site"]["red"] and a["confounding"]["red"]
    assert not b["label_from_site"]["red"] and sum(b["label_from_site"]["counts"].values()) == 100
    assert b["within_sites"]["within"]["value"] == 1 and b["within_sites"]["metric"] == "auroc"
    for name in ("label_from_site", "confounding", "within_sites"):
        assert "each by itself" in found[name]["reason"]


@pytest.mark.parametrize(
    ("kind", "metric", "needs"),
    [
        ("survival", "c_index", "with the event"),
        ("regression", "concordance", "5 patients"),
        ("ordinal", "concordance", "outside its commonest level"),
    ],
)
def test_a_site_counts_within_sites_when_enough_of_what_is_scarce_is_there(kind: str, metric: str, needs: str) -> None:
    n = 24
    names, sites = np.array([f"p{i}" for i in range(n)], dtype=object), ["big"] * 20 + ["small"] * 4
    fold, rng = np.zeros(n, np.int64), np.random.default_rng(9)
    time = rng.exponential(5, n)
    y, p, task = {
        "survival": (
            np.stack([time, np.arange(n) % 2], axis=1),
            -time[:, None],
            Task("survival", "os", (), ("t", "e"), (1.0,)),
        ),
        "regression": (time, time[:, None], Task("regression", "x", ())),
        "ordinal": (np.arange(n) % 3, np.eye(3)[np.arange(n) % 3], Task("ordinal", "g", ("1", "2", "3"))),
    }[kind]
    tested = fold_rows(names, names, fold, y, p, task)
    found = within_sites(tested, sites)
    assert found["sites"] == ["big"] and found["metric"] == metric and found["within"]["value"] == 1
    few = within_sites(tested.only(np.arange(n) >= 20), sites[20:])
    assert few["within"] is None and needs in few["reason"]
