"""Figures of labels, numbers and levels equal those of scikit-learn and scipy; evaluation of every kind end to end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics as sk

from coverslip.base.errors import TableError
from coverslip.eval import FoldSize, baseline_predictions, evaluate
from coverslip.eval.kinds import KINDS
from coverslip.eval.levels import median_level
from coverslip.eval.reduce import Units
from coverslip.eval.truth import READERS, Task

CLOSE = {"abs": 1e-9}


def units(y: np.ndarray, p: np.ndarray) -> Units:
    ids = np.array([f"u{i}" for i in range(len(y))])
    return Units(ids, ids, y, p)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_judged_as_scikit_learn_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(50, 10, 40).round()
    p = (y + rng.normal(0, 8, 40)).round()
    found = KINDS["regression"].figures(units(y, p[:, None]), Task("regression", "age", ()))
    assert found["r2"] == pytest.approx(sk.r2_score(y, p), **CLOSE)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, p), **CLOSE)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p), **CLOSE)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(y, p).statistic, **CLOSE)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(y, p).statistic, **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_judged_as_scikit_learn_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 50)
    p = rng.dirichlet(np.ones(4), 50)
    decided = median_level(p)
    found = KINDS["ordinal"].figures(units(y, p), Task("ordinal", "grade", tuple("1234")))
    assert found["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(y, decided, weights="quadratic"), **CLOSE)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, decided), **CLOSE)
    assert found["within_one"] == pytest.approx(np.mean(np.abs(y - decided) <= 1), **CLOSE)
    each = [sk.roc_auc_score(y >= k, p[:, k:].sum(1)) for k in (1, 2, 3)]
    assert found["auroc_from_3"] == pytest.approx(each[1], **CLOSE)
    assert found["auroc"] == pytest.approx(np.mean(each), **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_judged_over_those_who_know_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 1.0, np.nan], (60, 3), p=[0.4, 0.4, 0.2])
    p = rng.uniform(size=(60, 3)).round(1)
    found = KINDS["multilabel"].figures(units(y, p), Task("multilabel", "a, b, c", tuple("abc"), tuple("abc")))
    for t, label in enumerate("abc"):
        known = ~np.isnan(y[:, t])
        assert found[f"auroc_{label}"] == pytest.approx(sk.roc_auc_score(y[known, t], p[known, t]), **CLOSE)
        assert found[f"auprc_{label}"] == pytest.approx(sk.average_precision_score(y[known, t], p[known, t]), **CLOSE)
        assert found[f"brier_{label}"] == pytest.approx(sk.brier_score_loss(y[known, t], p[known, t]), **CLOSE)
    assert found["auroc"] == pytest.approx(np.mean([found[f"auroc_{label}"] for label in "abc"]))


def test_a_label_of_one_class_leaves_the_mean_to_the_others() -> None:
    rng = np.random.default_rng(0)
    y = np.stack([np.ones(20), np.arange(20) % 2], axis=1)
    task = Task("multilabel", "a, b", ("a", "b"), ("a", "b"))
    u = units(y, rng.uniform(size=(20, 2)))
    found = KINDS["multilabel"].figures(u, task)
    assert found["auroc_a"] is None and found["auroc"] == found["auroc_b"]
    assert "knows a has the same value" in KINDS["multilabel"].doubts(u, task, "patient")[0]


@pytest.mark.parametrize("kind", ["regression", "ordinal", "multilabel"])
def test_weights_mean_the_same_as_repeated_rows(kind: str) -> None:
    task, truth, values = example(kind, 30)
    drawn = np.random.default_rng(1).integers(0, 3, 30)
    again = np.repeat(np.arange(30), drawn)
    whole, repeated = units(truth, values), units(truth[again], values[again])
    for name in KINDS[kind].names(task):
        weighted = KINDS[kind].figure(name, whole, drawn[None, :].astype(float), task)[0]
        assert weighted == pytest.approx(KINDS[kind].figures(repeated, task)[name], **CLOSE), name


def example(kind: str, n: int, seed: int = 0) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task, what is true of n units, and predictions that know a little of it."""
    rng = np.random.default_rng(seed)
    grid = (2.0, 5.0, 9.0)
    if kind in ("classification", "ordinal"):
        y, classes = np.arange(n) % 3, ("0", "1", "2")
        return Task(kind, "y", classes), y, rng.dirichlet(np.ones(3), n) * 0.7 + 0.3 * np.eye(3)[y]
    if kind == "multilabel":
        y = np.where(rng.uniform(size=(n, 2)) < 0.1, np.nan, rng.integers(0, 2, (n, 2)).astype(float))
        y[np.isnan(y).all(axis=1)] = 0
        return Task(kind, "a, b", ("a", "b"), ("a", "b")), y, rng.uniform(size=(n, 2))
    if kind == "regression":
        y = rng.normal(size=n)
        return Task(kind, "y", ()), y, y[:, None] + rng.normal(size=(n, 1))
    causes = ("heart", "cancer") if kind == "competing_risks" else ()
    y = np.stack([rng.exponential(6, n), rng.integers(0, 1 + max(1, len(causes)), n)], axis=1)
    task = Task(kind, "os", causes, ("days", "os"), grid)
    return task, y, rng.uniform(0, 0.5, (n, len(READERS[kind].predictions(task))))


def table(kind: str, n: int = 40, folds: int = 4, seed: int = 0) -> tuple[Task, pd.DataFrame]:
    task, y, p = example(kind, n, seed)
    names = np.array(["0", *(task.classes or ["1"])], dtype=object)
    if kind in ("classification", "ordinal"):
        known: Any = {task.column: np.array(task.classes, dtype=object)[y]}
    elif y.ndim == 1:
        known = {task.column: y}
    elif kind == "multilabel":
        known = dict(zip(task.columns, y.T))
    else:
        known = {task.columns[0]: y[:, 0], task.columns[1]: names[y[:, 1].astype(int)]}
    rows = {"slide": [f"s{i}" for i in range(n)], "patient": [f"p{i}" for i in range(n)], "fold": np.arange(n) % folds}
    columns = dict(zip(READERS[kind].predictions(task), p.T))
    return task, pd.DataFrame({**rows, "repeat": 0, "set": "test", **known, **columns})


def run(kind: str, task: Task, frame: pd.DataFrame, folds: int = 4, **options: Any) -> Any:
    training = example(kind, 60, seed=9)[1]
    sizes = [
        FoldSize(k, 30, int((frame["fold"] == k).sum()), training=training if training.shape[1:] == (2,) else None)
        for k in range(folds)
    ]
    return evaluate(frame, frame, task=task.to_json(), level="patient", split=sizes, resamples=100, **options)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_evaluated_from_table_to_json(kind: str) -> None:
    task, frame = table(kind)
    found = run(kind, task, frame, sites=pd.Series({f"s{i}": "AB"[i % 2] for i in range(40)}))
    json.dumps(found.metrics, allow_nan=False), json.dumps(found.curves, allow_nan=False)
    assert found.metrics["headline"] == KINDS[kind].headline
    for part in ("primary", "pooled", "baseline", "versus_baseline"):
        assert set(KINDS[kind].names(task)) <= set(found.metrics[part])
    headline = found.metrics["pooled"][KINDS[kind].headline]
    assert headline["low"] < headline["value"] < headline["high"]
    assert found.metrics["versus_baseline"][KINDS[kind].headline]["value"] == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_csv_changes_nothing(kind: str, tmp_path: Any) -> None:
    task, frame = table(kind)
    frame.to_csv(tmp_path / "p.csv", index=False)
    text = dict.fromkeys(task.columns, str)
    again = pd.read_csv(tmp_path / "p.csv", dtype=text, keep_default_na=False, float_precision="round_trip")
    assert run(kind, task, again).metrics["primary"] == run(kind, task, frame).metrics["primary"]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("n", [1, 5])
def test_a_handful_of_patients_is_no_crash(kind: str, n: int) -> None:
    task, frame = table(kind, n, folds=n)
    found = run(kind, task, frame, folds=n)
    json.dumps(found.metrics, allow_nan=False)
    assert found.metrics["warnings"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_external_rows_alone_are_evaluated(kind: str) -> None:
    task, frame = table(kind)
    outside = pd.concat([frame.assign(fold=k, set="external") for k in range(3)])
    found = evaluate(outside, None, task=task.to_json(), level="patient", split=[], resamples=100)
    assert found.metrics["external"][KINDS[kind].headline]["value"] is not None
    json.dumps(found.curves, allow_nan=False)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_baseline_says_what_it_should(kind: str) -> None:
    task, y, _ = example(kind, 60)
    rng = np.random.default_rng(2)
    x = np.concatenate([np.nan_to_num(np.asarray(y, float).reshape(60, -1)), rng.normal(size=(60, 5))], axis=1)
    found = baseline_predictions(task, x[:45], y[:45], x[45:])
    assert found.shape == (15, len(READERS[kind].predictions(task))) and np.isfinite(found).all()
    READERS[kind].check(y[45:], found, task, [f"row {i}" for i in range(15)])
    tested = KINDS[kind].figures(Units(*(np.arange(15).astype(str),) * 2, y[45:], found), task)
    value = tested[KINDS[kind].headline]
    assert value is None or value > KINDS[kind].chance


@pytest.mark.parametrize(
    ("kind", "column", "value", "says"),
    [
        ("regression", "y", "old", "slide s0: y is 'old'.*finite numbers"),
        ("multilabel", "a", 2.0, "slide s0: a is 2.*0, 1 or empty"),
        ("survival", "days", -1.0, "slide s0: days is -1.*over 0"),
        ("survival", "os", "2", "slide s0: os is '2'.*0, 1"),
        ("survival", "risk", np.nan, "slide s0, fold 0: risk is not a number"),
        ("multilabel", "p_b", 1.5, "slide s0, fold 0: p_b lies outside 0 to 1"),
    ],
)
def test_wrong_cells_are_refused_with_the_slide(kind: str, column: str, value: Any, says: str) -> None:
    task, frame = table(kind)
    frame[column] = frame[column].astype(object)
    frame.loc[0, column] = value
    with pytest.raises(TableError, match=says):
        run(kind, task, frame)


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_correlations_of_several_folds_are_those_within_folds(name: str) -> None:
    """Each fold's model has a scale of its own, which must neither make nor hide a correlation."""
    rng = np.random.default_rng(0)
    fold = np.repeat([0, 1, 2], 20)
    ids = np.array([f"u{i:02}" for i in range(60)])
    y = rng.normal(size=60) + 5 * fold
    task = Task("regression", "amount", ())
    kind = KINDS["regression"]
    one = np.ones((1, 60))

    def figure(p: np.ndarray, strata: np.ndarray | None) -> float:
        return float(kind.figure(name, Units(ids, ids, y, p[:, None], strata), one, task)[0])

    noise = rng.normal(size=60)
    assert figure(noise + 5 * fold, None) > 0.8 and abs(figure(noise + 5 * fold, fold)) < 0.4
    assert figure(y - 10 * fold, fold) == pytest.approx(1)
    # The slow reading: deviations (of ranks as shares of the fold) from the fold's means.
    parts = []
    for f in range(3):
        two = [v[fold == f] for v in (y, noise)]
        two = [v.argsort().argsort() / 20 for v in two] if name == "spearman" else two
        parts.append([v - v.mean() for v in two])
    a, b = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    assert figure(noise, fold) == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    whole = kind.fixed(Units(ids, ids, y, noise[:, None], fold), task, 0, 0)
    assert whole is not None and whole[name].low is not None and whole[name].low < figure(noise, fold)
    alone = kind.fixed(Units(ids, ids, y, noise[:, None], np.arange(60)), task, 0, 0)
    assert alone is not None and alone[name].value is None
