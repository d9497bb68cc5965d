"""Do 95 % intervals hold the truth 95 times in 100, and do tests reject 5 true hypotheses in 100? Simulated.

    python benchmarks/coverage.py                       # all parts, 10,000 cohorts a row: some 6 hours of one core
    python benchmarks/coverage.py --runs 1000           # about an hour
    python benchmarks/coverage.py --only folds tests    # some parts

With 10,000 cohorts the AUROC parts take up to a quarter of an hour each, classes an hour, all others a quarter to half
an hour. Where the truth is 95 %, 10,000 cohorts know it to .2 points, 1,000 to .7 (one standard error).

Fixed cohorts have one model, whose true figures are known or taken from a very large cohort. Cross-validations fit a
linear model anew in every fold; the truth is the mean figure, on all patients there are, of models from as many
training patients. Prints a table a part and keeps them in coverage.json, of which coverage_tables.py makes those of the
documentation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table
from coverage_auroc import auroc_large, auroc_others, auroc_small, auroc_unseen, classes_of
from coverage_groups import groups
from coverage_kinds import classes, competing, labels, levels, numbers, survival
from coverage_paired import paired
from numpy import ndarray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import t as student

from coverslip.audit import audit_split, feature_twins, sketch
from coverslip.cohort import Fold, Split
from coverslip.eval import patient_bootstrap
from coverslip.eval.auroc_interval import placements
from coverslip.eval.calibration import slope_and_intercept
from coverslip.eval.compare import corrected_t, holm, paired_delong
from coverslip.eval.conformal import cv_plus_interval, cv_plus_sets, split_conformal
from coverslip.eval.decision import decision_curve
from coverslip.eval.fixed_cohort import fixed_cohort
from coverslip.eval.interval import LEAST_FOLDS, SAME, nadeau_bengio
from coverslip.eval.metrics import classification_metrics, weighted
from coverslip.eval.ood import likeness
from coverslip.eval.reduce import Units
from coverslip.eval.sampling import sampling_half_width

FEATURES, FOLDS, RESAMPLES = 10, 5, 1000
KEPT = Path(__file__).with_name("coverage.json")
Row = dict[str, Any]


def shares(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """The other figures of a fixed cohort, of a model that is calibrated, three times too sure, or whose scores have
    long tails (Student's t, 3 degrees of freedom)."""
    names = ("accuracy", "balanced_accuracy", "f1", "auprc", "brier")
    for m, n in ((5, 5), (5, 45), (10, 10), (10, 90), (20, 20), (20, 180), (50, 200)):
        for signal in (1.0, 2.3):
            for model in ("calibrated", "too sure", "long tails"):

                def stated(y: ndarray, signal: float = signal, model: str = model, odds: float = m / n) -> ndarray:
                    noise = rng.standard_t(3, len(y)) if model == "long tails" else rng.normal(0, 1, len(y))
                    z = signal * (signal * y + noise) - signal**2 / 2 + np.log(odds) / 2
                    p = expit(3 * z if model == "too sure" else z)
                    return np.stack([1 - p, p], axis=1)

                everyone = (np.arange(400_000) < 400_000 * m / (m + n)).astype(int)
                truth = classification_metrics(everyone, stated(everyone), ("0", "1"))
                held, given = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
                y, ids = classes_of(m, n), np.arange(m + n).astype(str)
                for _ in range(runs):
                    found = fixed_cohort(Units(ids, ids, y, stated(y)), ("0", "1"), resamples=1)
                    for metric in names:
                        interval = found[metric]
                        if interval.low is not None:
                            given[metric] += 1
                            held[metric] += interval.low <= truth[metric] <= interval.high
                covered = {name: held[name] / given[name] if given[name] else None for name in names}
                yield {"classes": f"{m} : {n}", "signal": signal, "model": model, **covered, "runs": runs}


def decisions(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Net benefit at three thresholds, calibration slope and intercept."""
    everyone = expit(rng.normal(-1.5, 1.3, 500_000))
    truth = decision_curve(rng.random(500_000) < everyone, everyone, thresholds=[0.1, 0.2, 0.4])
    for n in (25, 50, 100, 250):
        held: dict[str, list[bool]] = {}
        for _ in range(runs):
            p = expit(rng.normal(-1.5, 1.3, n))
            y = rng.random(n) < p
            for found, true in zip(decision_curve(y, p, thresholds=[0.1, 0.2, 0.4]), truth):
                for name in ("model", "versus_all"):
                    inside = found[name]["low"] <= true[name]["value"] <= found[name]["high"]
                    held.setdefault(f"net benefit at {true['threshold']}, {name}", []).append(inside)
            for name, figure, right in zip(("slope", "intercept"), slope_and_intercept(p, y), (1.0, 0.0)):
                if figure.value is not None:
                    low, high = (end if end is not None else right for end in (figure.low, figure.high))
                    held.setdefault(name, []).append(low <= right <= high)
        for name, inside in held.items():
            yield {"patients": n, "figure": name, "covered": float(np.mean(inside)), "runs": runs}


def delong(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Two equally good models on one fixed cohort: how often p is under .05, by Welch's t (ours) and by DeLong's z."""
    for m, n in ((5, 5), (5, 45), (10, 10), (10, 90), (25, 25), (50, 200)):
        positive = classes_of(m, n) == 1
        for auroc in (0.75, 0.9):
            shift = float(ndtri(auroc)) * np.sqrt(2)
            ours = theirs = 0
            for _ in range(runs):
                shared = rng.normal(0, np.sqrt(0.5), m + n) + shift * positive
                scores = shared + rng.normal(0, np.sqrt(0.5), (2, m + n))
                found = paired_delong(positive, *scores)
                ours += found.p is not None and found.p < 0.05
                theirs += found.statistic is not None and abs(found.statistic) > 1.959964
            yield {
                "classes": f"{m} : {n}",
                "auroc": auroc,
                "rejected": ours / runs,
                "by_z": theirs / runs,
                "runs": runs,
            }


def folds(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """AUROC of a procedure by cross-validation, every fold refitted: our interval against three others.

    Ours is Nadeau-Bengio, widened to the sampling of the test patients where that is wider. `too_narrow`: how often it
    is; `wider`: mean width over that of Nadeau-Bengio by itself; `least`: the narrowest twentieth of widths over the
    mean, by itself and widened.
    """
    for n, prevalence, number in (
        (50, 0.5, FOLDS),
        (100, 0.5, FOLDS),
        (100, 0.2, FOLDS),
        (300, 0.3, FOLDS),
        (30, 0.3, 3),
        (100, 0.2, 3),
        (300, 0.2, 3),
    ):
        delta = _delta(0.75)
        truth = _true_auroc(int(n * (1 - 1 / number)), prevalence, delta, rng)
        held = {"ours": 0, "nadeau_bengio": 0, "usual_t": 0, "pooled": 0}
        widths = np.empty((runs, 2))
        for run in range(runs):
            x, y, fold = _cohort(n, prevalence, delta, rng, folds=number)
            score = np.empty(n)
            values, tested = [], []
            for f in range(number):
                test = fold == f
                score[test] = x[test] @ _fit(x[~test], y[~test])
                values.append(placements(y[test] == 1, score[test]).auroc)
                ids = np.flatnonzero(test).astype(str)
                tested.append(Units(ids, ids, y[test], np.stack([-score[test], score[test]], axis=1)))
            at_least = sampling_half_width(_auroc_of, tested, np.concatenate([units.y for units in tested]))
            for name, ratio, least in (
                ("ours", 1 / (number - 1), at_least),
                ("nadeau_bengio", 1 / (number - 1), 0.0),
                ("usual_t", 1e-9, 0.0),
            ):
                found = nadeau_bengio(values, 1, ratio, bounds=(-np.inf, np.inf), at_least=least)
                held[name] += found.low is not None and found.low <= truth <= found.high
                if name != "usual_t":
                    widths[run, int(name != "ours")] = np.nan if found.low is None else found.high - found.low
            p = np.stack([-score, score], axis=1)
            pooled = patient_bootstrap("auroc", y, p, np.arange(n), 300, run)
            held["pooled"] += pooled.low is not None and pooled.low <= truth <= pooled.high
        ours, alone = widths[~np.isnan(widths).any(axis=1)].T
        yield {
            "patients": n,
            "prevalence": prevalence,
            "folds": number,
            "truth": truth,
            **{k: v / runs for k, v in held.items()},
            "too_narrow": np.mean(ours > alone),
            "wider": ours.mean() / alone.mean(),
            "least_alone": np.quantile(alone, 0.05) / alone.mean(),
            "least": np.quantile(ours, 0.05) / ours.mean(),
            "runs": runs,
        }


def _auroc_of(units: Units, weights: ndarray) -> ndarray:
    return weighted("auroc", units.y, units.p, weights)


def _gap_of(units: Units, weights: ndarray) -> ndarray:
    reference, ours = (weighted("auroc", units.y, np.stack([-s, s], axis=1), weights) for s in units.p.T[:2])
    return ours - reference


def tests(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Equally good procedures, every fold refitted: how often one of them is called different from the reference.

    `too_narrow`: how often the interval of the first difference is narrower than the sampling of the test patients.
    """
    rows = ((50, 2, FOLDS), (100, 2, FOLDS), (300, 2, FOLDS), (100, 5, FOLDS), (60, 2, 3), (60, 2, 2))
    for n, methods, number in rows:
        # Each method sees features of its own, as informative as those of the others.
        delta = np.tile(_delta(0.75), methods)
        corrected = usual = family = unheld = narrow = 0
        for _ in range(runs):
            x, y, fold = _cohort(n, 0.4, delta, rng, folds=number)
            values, tested = np.empty((methods, number)), []
            for f in range(number):
                test = fold == f
                score = np.empty((int(test.sum()), methods))
                for k in range(methods):
                    mine = slice(k * FEATURES, (k + 1) * FEATURES)
                    score[:, k] = x[test, mine] @ _fit(x[~test, mine], y[~test])
                    values[k, f] = placements(y[test] == 1, score[:, k]).auroc
                ids = np.flatnonzero(test).astype(str)
                tested.append(Units(ids, ids, y[test], score))
            gaps = values[1:] - values[0]
            # By hand, since `corrected_t` refuses two folds; of more it is the same.
            spread = np.maximum(gaps.std(1, ddof=1), SAME)
            error = spread * np.sqrt(1 / number + 1 / (number - 1))
            p = (2 * student.sf(np.abs(gaps.mean(1)) / error, number - 1)).tolist()
            assert number < LEAST_FOLDS or np.allclose(p[0], corrected_t(gaps[0].tolist(), number - 1, 1).p)
            least = sampling_half_width(_gap_of, tested, np.concatenate([units.y for units in tested]))
            narrow += least is not None and student.ppf(0.975, number - 1) * error[0] < least
            plain = 2 * student.sf(np.abs(gaps.mean(1) / (spread / np.sqrt(number))), number - 1)
            corrected += p[0] is not None and p[0] < 0.05
            usual += plain[0] < 0.05
            family += any(q is not None and q < 0.05 for q in holm(p))
            unheld += any(q is not None and q < 0.05 for q in p)
        yield {
            "patients": n,
            "methods": methods,
            "folds": number,
            "corrected_t": corrected / runs,
            "usual_t": usual / runs,
            "any_after_holm": family / runs,
            "any_without": unheld / runs,
            "too_narrow": narrow / runs,
            "runs": runs,
        }


def conformal(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Prediction sets and ranges at 95 %: the share of new patients whose truth is inside, and its spread over runs."""
    delta = _delta(0.8)
    for n in (40, 100, 200):
        held: dict[str, list[float]] = {}
        for _ in range(runs):
            x, y, fold = _cohort(n, 0.3, delta, rng)
            new_x, new_y, _ = _cohort(100, 0.3, delta, rng)
            fits = [_fit(x[fold != f], y[fold != f]) for f in range(FOLDS)]
            out_of_fold = _p(np.array([x[i] @ fits[fold[i]] for i in range(n)]))
            new = np.stack([_p(new_x @ fit) for fit in fits])
            apart = _fit(*_cohort(n, 0.3, delta, rng)[:2])
            split = split_conformal(y, _p(x @ apart)).sets(_p(new_x @ apart))
            plus = cv_plus_sets(y, out_of_fold, fold, new)
            for name, sets in (("split, by class", split), ("CV+, by class", plus)):
                inside = sets[np.arange(len(new_y)), new_y]
                for k in (0, 1):
                    held.setdefault(f"{name}: class {k}", []).append(float(inside[new_y == k].mean()))
            # A number: the first feature from the others.
            lines = [np.linalg.lstsq(x[fold != f, 1:], x[fold != f, 0], rcond=None)[0] for f in range(FOLDS)]
            residual = np.abs(x[:, 0] - np.array([x[i, 1:] @ lines[fold[i]] for i in range(n)]))
            low, high = cv_plus_interval(residual, fold, np.stack([new_x[:, 1:] @ line for line in lines]))
            held.setdefault("CV+ range", []).append(float(((low <= new_x[:, 0]) & (new_x[:, 0] <= high)).mean()))
        for name, covered in held.items():
            yield {"patients": n, "what": name, "covered": np.mean(covered), "sd": np.std(covered), "runs": runs}


def unlike(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Slides of the same kind that are flagged as unlike at 5 %, of another kind (features off by 2), and of one that
    is near (off by a half). The stated false-alarm rate is from folds; `rate_held`: how often its interval holds
    the mean rate of all models, `own_rate_held` that of the model it stands beside."""
    for n in (30, 100, 300):
        own, far, near, stated = [], [], [], []
        for _ in range(max(20, runs // 10)):
            mixing = rng.normal(size=(32, 32)) / np.sqrt(32)
            made = likeness(rng.normal(size=(n, 32)) @ mixing, np.arange(n))
            own.append(made.flagged(rng.normal(size=(500, 32)) @ mixing).mean())
            far.append(made.flagged(rng.normal(size=(200, 32)) @ mixing + 2).mean())
            near.append(made.flagged(rng.normal(size=(200, 32)) @ mixing + 0.5).mean())
            stated.append((made.false_alarms.low, made.false_alarms.high))
        low, high = np.transpose(stated)
        yield {
            "patients": n,
            "false_alarms": np.mean(own),
            "sd": np.std(own),
            "found_far": np.mean(far),
            "found_near": np.mean(near),
            "rate_held": np.mean((low <= np.mean(own)) & (np.mean(own) <= high)),
            "own_rate_held": np.mean((low <= own) & (own <= high)),
            "runs": len(own),
        }


def leaks(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """Leaks that were planted in the folds of a cohort, found by kind, and clean folds of which something was told."""
    for patients, tiles, width in ((20, 30, 32), (60, 30, 32), (60, 200, 128), (200, 30, 32)):
        hits = dict.fromkeys(("clean", "patient", "copied", "encoded_again", "false_pairs"), 0)
        for _ in range(runs):
            rows, patient_of = _slides(patients, tiles, width, rng)
            hits["clean"] += bool(_told(rows, patient_of, {}))
            slide = str(rng.choice([s for s in rows if s.endswith("-1")]))
            hits["patient"] += _told(rows, patient_of, {slide: slide.replace("-1", "-0")}) == {"patient_leak"}
            for kind, again in (("copied", rows[slide]), ("encoded_again", _encoded_again(rows[slide], rng))):
                found = _told({**rows, "planted": again}, {**patient_of, "planted": "planted"}, {"planted": slide})
                hits[kind] += "feature_leak" in found
                hits["false_pairs"] += len(_twins({**rows, "planted": again})) > 1
        yield {
            "patients": patients,
            "tiles": tiles,
            "width": width,
            "found_patient": hits["patient"] / runs,
            "found_copy": hits["copied"] / runs,
            "found_encoded_again": hits["encoded_again"] / runs,
            "told_of_clean": hits["clean"] / runs,
            "other_pairs_told": hits["false_pairs"] / (2 * runs),
            "runs": runs,
        }


def _slides(
    patients: int, tiles: int, width: int, rng: np.random.Generator
) -> tuple[dict[str, ndarray], dict[str, str]]:
    """Rows of each slide, half precision as encoders leave them, and the patient of each. Slides of a patient share a
    part of their features, and those of a site too; every other patient has two slides."""
    sites = rng.normal(0, 0.5, (4, width))
    rows, patient_of = {}, {}
    for i in range(patients):
        mine = rng.normal(0, 0.7, width) + sites[i % 4]
        for s in range(1 + i % 2):
            slide = f"s{i:03}-{s}"
            centre = mine + rng.normal(0, 0.3, width)
            rows[slide] = (centre + rng.normal(0, 1, (tiles, width))).astype(np.float16)
            patient_of[slide] = f"p{i:03}"
    return rows, patient_of


def _encoded_again(rows: ndarray, rng: np.random.Generator) -> ndarray:
    """The same slide in another run: a tenth of the tiles lost, another order, rounding of another device."""
    kept = rng.permutation(len(rows))[: max(2, round(0.9 * len(rows)))]
    return (rows[kept] * (1 + rng.normal(0, 1e-3, rows[kept].shape))).astype(np.float16)


def _twins(rows: dict[str, ndarray]) -> tuple[tuple[str, str], ...]:
    return feature_twins({slide: sketch(x).mean for slide, x in rows.items()}, lambda slide: rows[slide])


def _told(rows: dict[str, ndarray], patient_of: dict[str, str], apart: dict[str, str]) -> set[str]:
    """The codes that the audit tells of five folds of patients, in which each slide of `apart` is tested in another
    fold than the slide that it names."""
    names = sorted(set(patient_of.values()))
    fold_of = {name: i % FOLDS for i, name in enumerate(names)}
    place = {slide: fold_of[patient] for slide, patient in patient_of.items()}
    for slide, other in apart.items():
        place[slide] = (place[other] + 1) % FOLDS
    split = Split(
        tuple(
            Fold(
                f,
                0,
                tuple(s for s in sorted(rows) if place[s] != f),
                (),
                tuple(s for s in sorted(rows) if place[s] == f),
            )
            for f in range(FOLDS)
        ),
        patient_of,
        "simulated",
    )
    return {found.code for found in audit_split(split, features=_twins(rows))}


def _delta(auroc: float) -> ndarray:
    """Mean differences of the features, of which the best linear score has this AUROC."""
    return np.full(FEATURES, float(ndtri(auroc)) * np.sqrt(2 / FEATURES))


def _cohort(
    n: int, prevalence: float, delta: ndarray, rng: np.random.Generator, *, folds: int = FOLDS
) -> tuple[ndarray, ndarray, ndarray]:
    """Features, classes, and stratified folds."""
    y = (np.arange(n) < round(n * prevalence)).astype(np.int64)
    fold = np.empty(n, dtype=np.int64)
    for k in (0, 1):
        members = np.flatnonzero(y == k)
        fold[members] = rng.permutation(len(members)) % folds
    return rng.normal(size=(n, len(delta))) + y[:, None] * delta, y, fold


def _fit(x: ndarray, y: ndarray) -> ndarray:
    """Weights of a linear discriminant with a ridge."""
    means = [x[y == k].mean(axis=0) for k in (0, 1)]
    apart = x - np.where(y[:, None] == 1, means[1], means[0])
    return np.linalg.solve(apart.T @ apart / len(x) + np.eye(x.shape[1]), means[1] - means[0])


def _p(score: ndarray) -> ndarray:
    p = expit(2 * score)
    return np.stack([1 - p, p], axis=1)


def _true_auroc(n: int, prevalence: float, delta: ndarray, rng: np.random.Generator) -> float:
    """The mean AUROC over all patients there are of models from n training patients."""
    values = []
    for _ in range(4000):
        x, y, _ = _cohort(n, prevalence, delta, rng)
        w = _fit(x, y)
        values.append(ndtr(w @ delta / np.sqrt(2 * w @ w)))
    return float(np.mean(values))


PARTS: dict[str, Callable[[int, np.random.Generator], Iterator[Row]]] = {
    part.__name__: part
    for part in (
        *(auroc_small, auroc_large, shares, decisions, delong, folds, tests, conformal, unlike),
        *(survival, labels, levels, numbers, leaks, paired, auroc_others, competing, classes, auroc_unseen, groups),
    )
}


def _rounded(row: Row) -> Row:
    """As it is kept: shares of 10,000 cohorts have no more digits."""
    return {name: round(float(v), 5) if isinstance(v, float | np.floating) else v for name, v in row.items()}


def _shown(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="cohorts in each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--out", type=Path, default=KEPT, help="where parts are written to, beside those it has")
    given = parser.parse_args()
    print(f"{machine()}; seed {given.seed}")
    kept = json.loads(given.out.read_text()) if given.out.is_file() else {"seed": given.seed, "parts": {}}
    if kept["seed"] != given.seed:
        parser.error(f"{given.out} has parts of seed {kept['seed']}")
    found: dict[str, list[Row]] = kept["parts"]
    for place, name in enumerate(PARTS):
        if name not in given.only:
            continue
        # Each part has its own stream, so that it gives the same alone.
        found[name] = [_rounded(row) for row in PARTS[name](given.runs, np.random.default_rng([given.seed, place]))]
        print(f"\n### {PARTS[name].__doc__}\n")
        print(
            table(list(found[name][0]), [[_shown(value) for value in row.values()] for row in found[name]]), flush=True
        )
        parts = dict(sorted(found.items()))
        given.out.write_text(json.dumps({"seed": given.seed, "parts": parts}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
