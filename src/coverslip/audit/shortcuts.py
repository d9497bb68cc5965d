"""Could the model have read the institution instead of the tissue? Four questions with numbers for answers.

Do features tell the site? Does the site tell the label? How does the model do where the site cannot help? Do tiles tell
their slide? A site is an institution: what shares scanner, stain and staff. The tissue source site of a TCGA barcode is
not one: it stands for an institution and a tumour, so it tells the label of any task across tumours by definition.

Everything is at patient level and cross-validated; nothing here needs a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import random_table
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression

from coverslip.audit.probe import (
    FOLDS,
    LEAST_PATIENTS,
    RED_AUROC,
    RED_P,
    RED_V,
    Probe,
    counted,
    dealt,
    nothing,
    probe,
)
from coverslip.base.random import stream
from coverslip.eval.bootstrap import bca
from coverslip.eval.concordance import Concordance, Contrast
from coverslip.eval.fold_rows import FoldRows, concordance_interval

# Patients of each class that a site needs for a figure of its own.
LEAST_IN_CLASS = 5
_DIMENSIONS = 48
_MOST_SITES = 20
_TABLES = 9999


def site_from_features(
    embedding: Float[ndarray, "n d"], sites: Sequence[str | None], *, seed: int = 0, resamples: int = 500
) -> tuple[Probe, Probe]:
    """Balanced accuracy and AUROC (one site against the rest, averaged) of a logistic regression that tells the site of
    a patient from mean features; five patient folds, dealt site by site.

    `embedding` has one row a patient; sites with under ten patients are left out, and of very many the 20 largest stay.
    """
    x = np.asarray(embedding, dtype=np.float64)
    names = [None if site is None or site != site else str(site) for site in sites]
    kept, counts = _large_sites(names)
    what = "site from features"
    if len(kept) < 2:
        reason = f"{len(kept)} sites with {LEAST_PATIENTS} patients or more"
        return nothing(what, "balanced_accuracy", 0.5, counts, reason), nothing(what, "auroc", 0.5, counts, reason)
    rows = np.array([i for i, name in enumerate(names) if name in kept])
    y = np.array([kept.index(str(names[i])) for i in rows])
    fold = dealt(y, FOLDS, seed)
    p = np.zeros((len(rows), len(kept)))
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        p[test] = _logistic(x[rows[train]], y[train], x[rows[test]], len(kept))
    right = p.argmax(axis=1) == y

    def balanced(weights: Float[ndarray, "r n"]) -> Float[ndarray, r]:
        recalls = [(weights @ (right & (y == k))) / (weights @ (y == k)) for k in range(len(kept))]
        return np.mean(recalls, axis=0)

    contrasts = [Contrast(p[:, k], (y == k).astype(float)) for k in range(len(kept))]
    patients = np.arange(len(rows)).astype(str)
    accuracy = bca(balanced, patients, y, resamples=resamples, seed=seed, bounds=(0.0, 1.0))
    auroc = bca(Concordance(contrasts, fold), patients, y, resamples=resamples, seed=seed, bounds=(0.0, 1.0))
    return (
        probe(what, "balanced_accuracy", accuracy, 1 / len(kept), counts),
        probe(what, "auroc", auroc, 0.5, counts),
    )


def label_from_site(
    labels: Int[ndarray, n], sites: Sequence[str | None], *, seed: int = 0, resamples: int = 500
) -> Probe:
    """AUROC of telling a patient's class from the site alone: the share of each class among the other folds' patients
    of that site, a site that they do not have counting as all. More than two classes: one against the rest,
    averaged."""
    names = [None if site is None or site != site else str(site) for site in sites]
    rows = np.array([i for i, name in enumerate(names) if name is not None], dtype=np.int64)
    counts = counted([names[i] for i in rows])
    y = np.asarray(labels)[rows] if len(rows) else np.zeros(0, np.int64)
    found, y = np.unique(y, return_inverse=True)
    what = "label from site"
    if len(counts) < 2 or len(found) < 2:
        return nothing(what, "auroc", 0.5, counts, "one site" if len(found) > 1 else "one class")
    if min(np.bincount(y)) < LEAST_IN_CLASS:
        return nothing(what, "auroc", 0.5, counts, f"a class of under {LEAST_IN_CLASS} patients")
    site = np.unique([str(names[i]) for i in rows], return_inverse=True)[1]
    fold = dealt(y, FOLDS, seed)
    p = np.zeros((len(rows), len(found)))
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        share = np.bincount(y[train], minlength=len(found)) / train.sum()
        seen = np.zeros((int(site.max()) + 1, len(found)))
        np.add.at(seen, (site[train], y[train]), 1.0)
        # One patient's worth of everybody, so that a site of one patient is not believed.
        told = (seen + share) / (seen.sum(axis=1, keepdims=True) + 1)
        p[test] = told[site[test]]
    ks = [1] if len(found) == 2 else range(len(found))
    statistic = Concordance([Contrast(p[:, k], (y == k).astype(float)) for k in ks], fold)
    figure = bca(statistic, np.arange(len(rows)).astype(str), y, resamples=resamples, seed=seed, bounds=(0.0, 1.0))
    red = figure.value is not None and figure.value >= RED_AUROC and (figure.low or 0) > 0.5
    return probe(what, "auroc", figure, 0.5, counts, red=red)


def confounding(labels: Int[ndarray, n], sites: Sequence[str | None], *, seed: int = 0) -> dict[str, Any]:
    """How much site and label hang together: Cramér's V, corrected for what chance gives small tables (Bergsma 2013,
    https://doi.org/10.1016/j.jkss.2012.10.002), and p of as large a chi-square among 9,999 tables of the same margins.
    """
    pairs = [(str(s), int(y)) for s, y in zip(sites, labels) if s is not None and s == s]
    names, classes = sorted({s for s, _ in pairs}), sorted({y for _, y in pairs})
    if len(names) < 2 or len(classes) < 2:
        return {"cramers_v": None, "p": None, "red": False, "reason": "one site" if len(names) < 2 else "one class"}
    table = np.zeros((len(names), len(classes)))
    for site, y in pairs:
        table[names.index(site), classes.index(y)] += 1
    n, (r, k) = table.sum(), table.shape
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / n
    chi2 = float(((table - expected) ** 2 / expected).sum())
    phi2 = max(0.0, chi2 / n - (r - 1) * (k - 1) / (n - 1))
    rows, columns = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    v = float(np.sqrt(phi2 / max(1e-12, min(rows, columns) - 1)))
    chance = stream(seed, "audit", "confounding")
    tables = random_table(table.sum(axis=1).astype(int), table.sum(axis=0).astype(int)).rvs(
        _TABLES, random_state=chance
    )
    drawn = ((tables - expected) ** 2 / expected).sum(axis=(1, 2))
    p = float((1 + (drawn >= chi2 - 1e-9).sum()) / (1 + _TABLES))
    return {"cramers_v": min(1.0, v), "p": p, "red": bool(v >= RED_V and p < RED_P), "reason": None}


def within_sites(tested: FoldRows, sites: Sequence[str | None]) -> dict[str, Any]:
    """The model's figure where the site cannot help: only patients of one site and fold are compared, and beside it the
    figure over all pairs of the same patients within folds. Intervals are those of subgroups (`concordance_interval`).

    A site counts with five or more patients of each class, all folds together; of times with five who had the event
    (each cause), of levels with five outside its commonest, of numbers with five. All pairs within a site and fold
    count the same, whichever site they are of.
    """
    names = np.array(["" if s is None or s != s else str(s) for s in sites], dtype=object)
    kept = []
    for site in sorted(set(names.tolist()) - {""}):
        if tested.only(names == site).scarcest()[0] >= LEAST_IN_CLASS:
            kept.append(site)
    empty: dict[str, Any] = {"metric": tested.metric, "sites": kept, "within": None, "overall": None}
    if not kept:
        return empty | {"reason": f"no site has {LEAST_IN_CLASS} patients{_needed(tested)}"}
    inside = np.isin(names, kept)
    here = tested.only(inside)
    place = np.array([kept.index(name) for name in names[inside]])
    strata = here.fold * len(kept) + place
    figures = {"within": concordance_interval(here, strata), "overall": concordance_interval(here)}
    if figures["within"].value is None:
        return empty | {"reason": "no pair within a site and fold"}
    return empty | {
        "units": here.num_units,
        **{name: figure.to_json() for name, figure in figures.items()},
        "reason": None,
    }


def _needed(tested: FoldRows) -> str:
    """What a site has to have enough of, as the end of a sentence."""
    if tested.contrasts[0].time is not None:
        return " with the event" if len(tested.contrasts) == 1 else " with each event"
    if tested.ordered:
        return " outside its commonest level"
    return " of each class" if tested.needed else ""


def slide_collapse(
    tiles: Mapping[str, Float[ndarray, "t d"]],
    sites: Mapping[str, str | None] | None = None,
    patients: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """How well a tile tells its slide: half of a slide's sampled tiles make its mean, and each tile of the other half
    goes to the nearest mean. Features that tell every slide say more of stain and scanner than of tissue.

    `tiles` holds a few sampled rows of each slide (8 at least). `within_site` lets a tile choose among slides of its
    own site alone, where stain and scanner help less. Chance is one over the number of slides to choose from.
    `patients` names the patient of each slide: slides of one patient are alike and count together; each slide stands
    for a patient where it is None.
    """
    usable = {slide: np.asarray(x, dtype=np.float64) for slide, x in sorted(tiles.items()) if len(x) >= 8}
    if len(usable) < 3:
        return {"accuracy": None, "chance": None, "slides": len(usable), "reason": "under 3 slides with 8 tiles"}
    chance = stream(seed, "audit", "collapse")
    every = np.concatenate(list(usable.values()))
    centre, scale = every.mean(axis=0), np.where(every.std(axis=0) > 1e-12, every.std(axis=0), 1.0)
    means, held, owner = [], [], []
    for place, x in enumerate(usable.values()):
        z = (x[chance.permutation(len(x))] - centre) / scale
        means.append(z[: len(z) // 2].mean(axis=0))
        held.append(z[len(z) // 2 :])
        owner += [place] * len(held[-1])
    mine, of = np.concatenate(held), np.array(owner)
    anchors = np.stack(means)
    distance = (anchors**2).sum(axis=1)[None, :] - 2 * mine @ anchors.T
    patient = np.array([str((patients or {}).get(slide, slide)) for slide in usable])
    found = _collapse_figure(distance, of, patient, np.ones((len(usable), len(usable)), bool))
    site_of = [(sites or {}).get(slide) for slide in usable]
    same = np.array([[a is not None and a == b for b in site_of] for a in site_of])
    several = same.sum(axis=1) >= 3
    inner = _collapse_figure(distance, of, patient, same, several) if several.sum() >= 3 else None
    return {**found, "slides": len(usable), "tiles": len(mine), "within_site": inner, "reason": None}


def _collapse_figure(
    distance: Float[ndarray, "m s"],
    of: Int[ndarray, m],
    patient: ndarray,
    allowed: ndarray,
    among: ndarray | None = None,
) -> dict[str, Any]:
    """Accuracy over patients (each counting the same, as the mean of their slides), with Student's interval over
    patients, and chance. No interval where all patients are the same: it would have no width."""
    nearest = np.where(allowed[of], distance, np.inf).argmin(axis=1)
    slides = np.flatnonzero(among) if among is not None else np.arange(distance.shape[1])
    shares = np.array([(nearest[of == s] == s).mean() for s in slides])
    names, whose = np.unique(patient[slides], return_inverse=True)
    means = np.bincount(whose, shares) / np.bincount(whose)
    n, mean, half = len(names), float(means.mean()), None
    if n > 1 and np.ptp(means) > 0:
        half = float(student.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n))
    return {
        "accuracy": mean,
        "low": None if half is None else max(0.0, mean - half),
        "high": None if half is None else min(1.0, mean + half),
        "interval": "over patients, Student's t, 95%",
        "patients": n,
        "chance": float(np.mean(1 / allowed[slides].sum(axis=1))),
    }


def _large_sites(names: Sequence[str | None]) -> tuple[list[str], dict[str, int]]:
    counts = counted(names)
    large = [site for site, n in counts.items() if n >= LEAST_PATIENTS]
    return sorted(sorted(large, key=lambda site: -counts[site])[:_MOST_SITES]), counts


def _logistic(
    x: Float[ndarray, "n d"], y: Int[ndarray, n], new: Float[ndarray, "m d"], classes: int
) -> Float[ndarray, "m k"]:
    """Probabilities by a logistic regression on standardised principal components, all learnt on `x` alone."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd = np.where(sd > 1e-12, sd, 1.0)
    x, new = (x - mean) / sd, (new - mean) / sd
    _, s, axes = np.linalg.svd(x, full_matrices=False)
    # Components of no spread at all would be blown up to noise.
    keep = min(_DIMENSIONS, int((s > 1e-8 * max(float(s[0]), 1e-300)).sum()) or 1)
    width = s[:keep] / np.sqrt(len(x))
    width = np.where(width > 0, width, 1.0)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(x @ axes[:keep].T / width, y)
    p = np.zeros((len(new), classes))
    p[:, model.classes_] = model.predict_proba(new @ axes[:keep].T / width)
    return p
