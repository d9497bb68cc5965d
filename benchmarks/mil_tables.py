"""The tables of docs/methods_measured.md, made of mil_methods.json, mil_planted.json and mil_cost.json alone.

python benchmarks/mil_tables.py            # writes the page
python benchmarks/mil_tables.py --check    # says whether the page is what the figures make
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from mil_methods import IMBALANCE, TUNED, WITHOUT
from mil_planted import EPOCHS

from coverslip.eval import FoldSize
from coverslip.eval.compare import Comparison, compare_folds
from coverslip.eval.interval import nadeau_bengio

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "methods_measured.md"
REFERENCE, BASELINE = "abmil", "mean+sd logistic"
# What papers report on the published folds, and on the classic sets (10-fold accuracy of gated and plain attention).
PUBLISHED = {
    "brca_published": "Papers on these folds: max pooling .832, HIPT .879",
    "lung_published": "Papers on these folds: max pooling .928, HIPT .953",
}
CLASSIC = {"musk1": (0.892, 92), "fox": (0.615, 200), "elephant": (0.868, 200), "ucsb_breast_cancer": (None, 58)}
FOLDS = {
    "brca": "Breast, IDC or ILC; 5 patient folds",
    "lung": "Lung, LUAD or LUSC; 5 patient folds",
    "brca_published": "Breast on the folds of papers (10, by slide, patients on both sides)",
    "lung_published": "Lung on the folds of papers (10, by slide, patients on both sides)",
    "brca_10": "Breast with a tenth of the training patients",
    "brca_25": "Breast with a quarter of the training patients",
    "lung_10": "Lung with a tenth of the training patients",
    "lung_25": "Lung with a quarter of the training patients",
    "thca_braf": "Thyroid, BRAF; 5 patient folds",
    "brca_tp53": "Breast, TP53; 5 patient folds",
}
PLANTED = ("small-5%", "small-1%", "small-0.1%", "large-1%", "large-0.1%")
POSITIVES = {"lung_pos5": "5 %", "lung_pos10": "10 %", "lung_pos20": "20 %"}
UNTREATED = "abmil, no weights"
NOT_WIDENED = " \\*"
HEAD = """# MIL methods, measured

All methods on the same folds at their default settings, seed 0; nothing was chosen on a test fold. AUROC is the mean
over folds with the 95 % interval of Nadeau and Bengio, as in a run's report. Behind \\* only the folds' figures were
kept: that interval is not [widened](statistics.md) to the sampling of the test patients, and may be narrow by luck.
Differences are paired fold by fold, with the corrected t; `p` is after Holm's correction over all rows against `abmil`
(or against the logistic baseline, a family of its own).
`abmil` was named as the reference before anything was trained.

**What is noise.** A difference whose interval holds 0 is not shown to be one, and the order of such rows is chance:
another seed reorders them. These bags are short (27 to 42 rows in the median), so what masks, top-k and packing are for
cannot show on them; the planted bags below are for that.

The figures come from `benchmarks/mil_methods.py`, `mil_planted.py` and `mil_cost.py`; this page from
`benchmarks/mil_tables.py`. A method that a table lacks has not been measured on it yet.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is another")
    given = parser.parse_args()
    text = page()
    if given.check:
        raise SystemExit(
            0 if PAGE.read_text(encoding="utf-8") == text else f"{PAGE.name} is not what the figures make."
        )
    PAGE.write_text(text, encoding="utf-8")


def page() -> str:
    """The whole page."""
    plans, planted, cost = (read(name) for name in ("mil_methods", "mil_planted", "mil_cost"))
    parts = [HEAD]
    for plan, title in FOLDS.items():
        if plan in plans:
            parts.append(folds_section(title, plans[plan], PUBLISHED.get(plan)))
        if plan == "lung" and {"brca", "lung"} <= set(plans):
            parts.append(why_section(plans["brca"], plans["lung"]))
    if any(plan in plans for plan in CLASSIC):
        parts.append(classic_section(plans))
    if any(plan in plans for plan in POSITIVES):
        parts.append(imbalance_section(plans))
    if plain := {name: cell for name, cell in planted.items() if cell["kind"] in PLANTED}:
        parts.append(planted_section(plain))
    if hard := {name: cell for name, cell in planted.items() if cell["kind"] not in PLANTED}:
        parts.append(hard_section(hard))
    if cost:
        parts.append(cost_section(cost))
    return "\n".join(parts)


def read(name: str) -> dict[str, Any]:
    path = HERE / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---- folds of real slides ----


def folds_section(title: str, cells: Mapping[str, Any], published: str | None) -> str:
    """AUROC of each method, its paired difference from the reference and from the baseline. Then what was tuned or
    changed in one thing, which belongs to no family of tests."""
    apart = {entry: cell for entry, cell in cells.items() if entry in {**WITHOUT, **TUNED}}
    every, cells = cells, {entry: cell for entry, cell in cells.items() if entry not in apart}
    note = f"\n{published}.\n" if published else ""
    parts = [f"## {title}\n{note}\n{family_table(cells, list(cells), REFERENCE, 'method')}\n"]
    hours = sum(cell["cpu_s"] for cell in every.values()) / 3600
    for entries, text in (
        (
            TUNED,
            "Three methods tuned inside each fold over three learning rates and two values of an option, by inner "
            "folds of its training patients; what was chosen is tested once.",
        ),
        (WITHOUT, "The same with one thing changed, to see what it does."),
    ):
        if found := [entry for entry in sorted(apart) if entry in entries]:
            parts.append(changed_section(every, found, text))
    return "\n".join([*parts, f"{hours:.1f} CPU hours on {one_machine(cells)}.\n"])


def family_table(
    cells: Mapping[str, Any], entries: list[str], reference: str, kind: str, also: tuple[str, ...] = ()
) -> str:
    """AUROC of entries and of the baseline, the best first, with their differences from two references: a family each.
    `also` are metrics of which the mean is told."""
    sizes, values = figures_of({entry: cells[entry] for entry in entries}, "auroc")
    references = [name for name in (reference, BASELINE) if name in values]
    differences = {name: by_method(compare_folds("auroc", name, values, sizes)) for name in references}
    others = {metric: figures_of({entry: cells[entry] for entry in entries}, metric)[1] for metric in also}
    rows = []
    for entry in sorted(values, key=lambda name: -np.mean(known(values[name]))):
        interval, mark = auroc_interval(cells, entry, values[entry], sizes)
        rows.append(
            [
                f"`{entry}`" if entry != BASELINE else entry,
                interval + mark,
                *(told(differences.get(name, {}).get(entry)) for name in (reference, BASELINE)),
                *(f"{np.mean(known(others[metric][entry])):.3f}" for metric in also),
                f"{cells[entry]['cpu_s']:.0f}" if entry in cells else "",
            ]
        )
    return table([kind, "AUROC", f"minus `{reference}`", "minus logistic", *also, "CPU s"], rows)


def changed_section(cells: Mapping[str, Any], changed: list[str], text: str) -> str:
    """What a change does to a method, paired fold by fold, and what is left to the reference."""
    sizes, values = figures_of(cells, "auroc")
    rows = []
    for entry in changed:
        method = entry.split(",")[0]
        interval, _ = auroc_interval(cells, entry, values[entry], sizes)
        others = [name for name in dict.fromkeys((method, REFERENCE)) if name in values]
        gaps = {
            name: compare_folds("auroc", name, {name: values[name], entry: values[entry]}, sizes).differences[0]
            for name in others
        }
        differences = (told(gaps.get(name), p=False) for name in (method, REFERENCE))
        rows.append([f"`{entry}`", interval, *differences, f"{cells[entry]['cpu_s']:.0f}"])
    head = ["changed", "AUROC", "minus the method itself", f"minus `{REFERENCE}`", "CPU s"]
    note = "Each interval is of one difference by itself: nothing is claimed from them."
    return f"{text} {note}\n\n{table(head, rows)}\n"


def why_section(breast: Mapping[str, Any], lung: Mapping[str, Any]) -> str:
    """Why methods lie more than .01 below the reference on the patient folds, as far as one change shows it."""

    def auroc(cell: Mapping[str, Any]) -> float:
        return float(np.mean([fold["auroc"] for fold in cell["folds"]]))

    def at(entry: str) -> str:
        return f"{auroc(breast[entry]):.3f}".lstrip("0")

    def below(name: str) -> str:
        gaps = [
            f"{where} {auroc(cells[name]) - auroc(cells[REFERENCE]):+.3f}"
            for where, cells in (("breast", breast), ("lung", lung))
            if name in cells
        ]
        return f"`{name}` ({', '.join(gaps)})"

    reasons = [
        f"{below('acmil')}: it hides up to 6 of the 10 rows that each branch attends to most, much of a bag of 27. "
        f"Without that {at('acmil, no masks')} on breast.",
        f"{below('scmil')}: the classifier gets little of the first .4 of training. Without the contrast, which leaves "
        f"the balanced draws, {at('scmil, no contrast')}.",
        f"{below('transmil')}, {below('rrt')}, {below('mambamil')}: millions of parameters between the rows "
        "of some 560 slides. The tuning loss of the first two is lowest after one to four epochs, where `abmil` takes "
        "five to eight. With a quarter "
        f"of the step `transmil` has {at('transmil, smaller steps')} and `rrt` {at('rrt, smaller steps')}. Rows of "
        "these files have no positions, so there is nothing for the order to tell.",
        f"{below('abmilx')}: neither the correlation ({at('abmilx, no correlation')} without) nor the heads "
        f"({at('abmilx, one head')} with one) nor the missing gate (`abmil` without one: {at('abmil, no gate')}) "
        f"costs it; smaller steps give {at('abmilx, smaller steps')}. What is left is the map and the layer norm "
        "behind the pooling.",
        f"{below('ins')}: it judges single rows, and its defaults are made for few witnesses: the ten most telling "
        f"rows decide. Where the mean of all rows does, {at('ins, mean of all rows')}; the rest is that each row has "
        "to show the subtype by itself.",
        f"{below('gnn_vitcap')}: not the number of clusters ({at('gnn_vitcap, 4 clusters')} with 4). The interval "
        "holds 0.",
        f"{below('weakstil')}, {below('mean')}: no attention, so every row counts the same. Both intervals hold 0 on "
        "breast.",
    ]
    seeds = " and ".join(at(f"abmil, seed {seed}") for seed in (1, 2))
    return (
        "## Why some lie below `abmil`\n\nMethods more than .01 below on one of the two sets, and what one change says "
        f"of it. To compare with: two other seeds of `abmil` have {seeds} on breast, where the first has "
        f"{at(REFERENCE)}.\n\n" + "\n".join(f"- {reason}" for reason in reasons) + "\n"
    )


def auroc_interval(
    cells: Mapping[str, Any], entry: str, values: list[float | None], sizes: list[FoldSize]
) -> tuple[str, str]:
    """The mean over folds with its interval as the run's own report has it; of figures that were kept without it the
    interval of the fold figures alone, and the mark that says so."""
    cell = cells.get(REFERENCE, next(iter(cells.values()))) if entry == BASELINE else cells[entry]
    kept = (cell.get("intervals") or {}).get("baseline" if entry == BASELINE else "entry")
    if kept is None:
        found = nadeau_bengio(known(values), [s.train for s in sizes], [s.test for s in sizes], bounds=(0.0, 1.0))
        return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})", NOT_WIDENED
    if kept["low"] is None:
        return f"{kept['value']:.3f} (no interval)", ""
    return f"{kept['value']:.3f} ({kept['low']:.3f} to {kept['high']:.3f})", ""


def figures_of(cells: Mapping[str, Any], metric: str) -> tuple[list[FoldSize], dict[str, list[float | None]]]:
    """The folds' sizes, and the metric of each fold for each entry and the baseline."""
    some = cells.get(REFERENCE) or next(iter(cells.values()))
    sizes = [FoldSize(f["fold"], f["train"], f["test"], f["repeat"]) for f in some["folds"]]
    values = {name: [fold[metric] for fold in cell["folds"]] for name, cell in cells.items()}
    return sizes, {**values, BASELINE: [fold[metric] for fold in some["baseline"]]}


def by_method(found: Comparison) -> dict[str, Any]:
    return {difference.method: difference for difference in found.differences}


def told(difference: Any, *, p: bool = True) -> str:
    if difference is None:
        return ""
    gap = difference.difference
    if gap.low is None:
        return f"{gap.value:+.3f}"
    interval = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
    if not p:
        return interval
    holm = difference.p_holm
    return f"{interval}, p {'< .001' if holm < 0.001 else f'{holm:.2g}' if holm < 0.01 else f'{holm:.2f}'}"


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def one_machine(cells: Mapping[str, Any]) -> str:
    return str(next(iter(cells.values()))["machine"]).split(";")[0]


# ---- classic sets ----


def classic_section(plans: Mapping[str, Any]) -> str:
    """Accuracy of 10 folds, 5 times, with its interval; the published one with the standard error of a proportion."""
    names = [plan for plan in CLASSIC if plan in plans]
    entries = sorted({entry for plan in names for entry in plans[plan]})
    rows = [[f"`{entry}`", *(accuracy(plans[plan], entry) for plan in names)] for entry in entries]
    rows.append([BASELINE, *(accuracy(plans[plan], BASELINE) for plan in names)])
    return (
        "## Classic sets\n\nAccuracy, mean of 10 folds drawn 5 times with the interval of Nadeau and Bengio, at the "
        "defaults for whole slides: no setting was made for these sets. Published for attention pooling, with two "
        f"binomial standard errors: {'; '.join(filter(None, map(published_accuracy, names)))}.\n\n"
        f"{table(['method', *names], rows)}\n\n{classic_differences(plans, names)}\n"
    )


def published_accuracy(plan: str) -> str | None:
    value, bags = CLASSIC[plan]
    if value is None:
        return None
    error = np.sqrt(value * (1 - value) / bags)
    return f"{plan} {value:.3f} ({value - 2 * error:.3f} to {value + 2 * error:.3f})"


def accuracy(cells: Mapping[str, Any], entry: str) -> str:
    sizes, values = figures_of(cells, "accuracy")
    if entry not in values:
        return ""
    train, test = [s.train for s in sizes], [s.test for s in sizes]
    found = nadeau_bengio(known(values[entry]), train, test, bounds=(0.0, 1.0))
    return f"{found.value:.3f} ({found.low:.2f} to {found.high:.2f})"


def classic_differences(plans: Mapping[str, Any], names: list[str]) -> str:
    """Which methods differ from the reference in accuracy, a family a set."""
    said = [f"{plan} {shown_to_differ(plans[plan], REFERENCE)}" for plan in names]
    return f"Shown to differ from `{REFERENCE}` after Holm's correction: {'; '.join(said)}."


def shown_to_differ(cells: Mapping[str, Any], reference: str) -> str:
    """The entries whose accuracy differs from the reference's after Holm's correction over all of them."""
    sizes, values = figures_of(cells, "accuracy")
    family = compare_folds("accuracy", reference, values, sizes).differences
    shown = [f"`{d.method}` {told(d)}" for d in family if d.p_holm is not None and d.p_holm < 0.05]
    return f"{', '.join(shown) if shown else 'none'} (of {len(family)})"


# ---- few positives ----


def imbalance_section(plans: Mapping[str, Any]) -> str:
    """AUROC on whole test folds after training on few positives, a table and a family a share."""
    parts = [
        "## Few positives\n\nLung, 5 patient folds: positives are thinned out to a share of the training patients; "
        f"test folds are whole. `{UNTREATED}` was named as the reference; class weights are the default of a study. "
        "Accuracy is that of the more probable class.\n"
    ]
    for plan, share in POSITIVES.items():
        if plan in plans:
            entries = [entry for entry in IMBALANCE if entry in plans[plan]]
            body = family_table(plans[plan], entries, UNTREATED, "training", ("accuracy",))
            shown = shown_to_differ({entry: plans[plan][entry] for entry in entries}, UNTREATED)
            parts.append(f"### {share} positives\n\n{body}\n\nShown to differ in accuracy: {shown}.\n")
    return "\n".join(parts)


# ---- planted bags ----


def planted_section(cells: Mapping[str, Any]) -> str:
    """Slide and localisation AUROC by kind of bags, mean over draws; and what longer training changes."""
    usual = [cell for cell in cells.values() if cell["epochs"] == EPOCHS]
    kinds = [kind for kind in PLANTED if any(cell["kind"] == kind for cell in usual)]
    rows = []
    for method in sorted({cell["method"] for cell in usual}):
        row = [f"`{method}`"]
        for kind in kinds:
            found = [cell for cell in usual if (cell["method"], cell["kind"]) == (method, kind)]
            slide = [cell["slide_auroc"] for cell in found]
            places = [placed(cell["evidence_auroc"], cell["attention_auroc"]) for cell in found]
            row.append(f"{np.mean(slide):.2f} / {np.mean(places):.2f} ({len(found)})" if found else "")
        rows.append(row)
    return (
        "## Planted bags\n\nSlide AUROC / localisation AUROC (draws). Small bags have 2,000 to 5,000 rows, large ones "
        "20,000 to 50,000; the share is that of witnesses in positive bags. 48 bags to learn from, 20 epochs, default "
        "settings. Localisation is by evidence where a method gives it, else by attention."
        f"\n\n{table(['method', *kinds], rows)}\n{longer_section(list(cells.values()))}"
    )


def longer_section(cells: list[Mapping[str, Any]]) -> str:
    """The same draws, trained longer: AUROC of the tested bags, and of those that were trained on."""
    rows = []
    for one in sorted((cell for cell in cells if cell["epochs"] != EPOCHS), key=lambda cell: str(cell["method"])):
        same = ("method", "kind", "seed")
        before = next((c for c in cells if c["epochs"] == EPOCHS and all(c[k] == one[k] for k in same)), None)
        both = ["" if c is None else f"{c['slide_auroc']:.2f} / {c['train_auroc']:.2f}" for c in (before, one)]
        rows.append([f"`{one['method']}`", f"{one['kind']}, {one['seed']}", both[0], f"{both[1]} ({one['epochs']})"])
    if not rows:
        return ""
    head = ["method", "bags, draw", f"{EPOCHS} epochs", "longer (epochs)"]
    return (
        "\nLonger training on the same draws. AUROC of the tested bags / of those trained on: both low, the steps were "
        f"too few; the second alone high, the bags were learnt by heart.\n\n{table(head, rows)}\n"
    )


def placed(evidence: float | None, attention: float | None) -> float:
    """Evidence where there is some: not the better of the two."""
    found = attention if evidence is None else evidence
    return float("nan") if found is None else found


def hard_section(cells: Mapping[str, Any]) -> str:
    """What becomes of witnesses that a method can do without."""
    rows = []
    for method in sorted({cell["method"] for cell in cells.values()}, key=lambda name: (name != REFERENCE, name)):
        found = [cell for cell in cells.values() if cell["method"] == method and cell["hard_share"] is not None]
        if found:
            means = [np.mean([cell[key] for cell in found]) for key in ("slide_auroc", "hard_share", "hard_auroc")]
            spread = np.ptp([cell["hard_share"] for cell in found])
            row = f"`{method}`", f"{means[0]:.2f}", f"{means[1]:.3f} (range {spread:.3f})", f"{means[2]:.2f}"
            rows.append([*row, str(len(found))])
    head = ["method", "slide AUROC", "hard rows' share of the witnesses' attention", "hard rows over the rest", "draws"]
    return (
        "## Hard witnesses\n\nBags of 500 to 2,000 rows with 5 % witnesses, every other one hard: moved by 2 standard "
        "deviations along a direction of its own, where the easy ones are moved by 4. Bags can be told apart without "
        f"them. Localisation is by attention.\n\n{table(head, rows)}\n"
    )


# ---- cost ----


def cost_section(cost: Mapping[str, Any]) -> str:
    threads = ", ".join(
        f"{part} with {number} thread{'s' if number > 1 else ''}" for part, number in cost["threads"].items()
    )
    parts = [f"## Cost\n\n{cost['machine'].split(';')[0]}; {threads}.\n"]
    if "packed" in cost:
        rows = [
            [name, f"{f['s']:.3f}", f"{f['ratio']:.2f}", f"{f['ratios'][0]:.2f} to {f['ratios'][-1]:.2f}"]
            for name, f in cost["packed"].items()
        ]
        parts.append(
            "A training step of gated ABMIL on 8 bags of log-uniform lengths from 50 to 4,000 rows of 1,024 numbers, "
            "hidden 512; CPU time of all threads, ways taking turns on the same bags.\n\n"
            f"{table(['way', 'CPU s', 'to packed', 'least to most'], rows)}\n"
        )
    if "methods" in cost:
        sizes = sorted({size for found in cost["methods"].values() for size in found}, key=int)
        grown = int(sizes[-1]) / int(sizes[-2])
        head = ["method", *(f"{int(size):,} rows: s a step, MB" for size in sizes), f"memory at {grown:g} x the rows"]
        rows = [
            [f"`{name}`", *(cell_of(found.get(size)) for size in sizes), growth(found, *sizes[-2:])]
            for name, found in sorted(cost["methods"].items())
        ]
        parts.append(
            "A training step on that many rows of 512 numbers (one bag, or as many as the method needs), CPU seconds "
            "of all threads, and the peak of memory over the process before. Memory that is linear in the rows is "
            f"{grown:g} times as much in the last column, or less where weights and threads are most of it.\n\n"
            f"{table(head, rows)}\n"
        )
    return "\n".join(parts)


def growth(found: Mapping[str, Any], fewer: str, more: str) -> str:
    both = [found.get(size) for size in (fewer, more)]
    if not all(cell and "peak_mb" in cell for cell in both):
        return ""
    return f"x {both[1]['peak_mb'] / both[0]['peak_mb']:.1f}"


def cell_of(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return found.get("failed") or f"{found['train_s']:.2f} s, {found['peak_mb']:.0f} MB"


if __name__ == "__main__":
    main()
