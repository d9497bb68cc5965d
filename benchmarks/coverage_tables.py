"""The tables of coverage in README.md, made of coverage.json beside this script, where `coverage.py` keeps its figures.

python benchmarks/coverage_tables.py            # writes each table behind its mark, <!-- coverage: PART -->
python benchmarks/coverage_tables.py --check    # says whether the tables are what the figures make
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import table

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "coverage.json", HERE / "README.md"
MARK = re.compile(r"(?<=<!-- coverage: )\w+(?= -->)")
# A share of fewer cohorts says too little to stand in a table.
LEAST = 400
ALL = 0.995
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is another")
    given = parser.parse_args()
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["parts"]
    text = PAGE.read_text(encoding="utf-8")
    written = text
    for part in MARK.findall(text):
        # A table lies behind its mark, and ends where an empty line does.
        behind = re.compile(rf"(<!-- coverage: {part} -->\n\n)(?:\|.*\n)*\n?")
        written = behind.sub(lambda found, part=part: f"{found[1]}{TABLES[part](kept[part])}\n\n", written)
    if not given.check:
        PAGE.write_text(written, encoding="utf-8")
    elif text != written:
        raise SystemExit(f"{PAGE.name} is not what {KEPT.name} makes.")


def of_kind(by: Sequence[str], figures: Mapping[str, Sequence[str]], marked: str = "") -> Callable[[list[Row]], str]:
    """A table with a line for each value of the columns `by`, and for each heading the range over all its figures.

    `marked` is a figure of which a last column tells how often those intervals hold that are a mere hint.
    """

    def write(rows: list[Row]) -> str:
        lines = []
        for key in dict.fromkeys(tuple(row[name] for name in by) for row in rows):
            mine = [row for row in rows if tuple(row[name] for name in by) == key]
            line = [str(value) for value in key]
            line += [cell([row for row in mine if row["figure"] in names]) for names in figures.values()]
            if marked:
                line.append(hints([row for row in mine if row["figure"] == marked]))
            lines.append(line)
        last = [f"marked {heading}" for heading, names in figures.items() if marked in names]
        return table([*(name.replace("_", " ") for name in by), *figures, *last], lines)

    return write


def cell(rows: list[Row]) -> str:
    """How often intervals held, lowest to highest, with the share of cohorts that state one without a mark."""
    if not rows or not any(row["stated"] for row in rows):
        return "none"
    share = spread([100 * row["stated"] for row in rows], "{:.0f}")
    known = [100 * row["covered"] for row in rows if row["stated"] * row["runs"] >= LEAST]
    return f"{spread(known, '{:.1f}') if known else '-'} ({share} %)"


def hints(rows: list[Row]) -> str:
    """The same of intervals that are marked as a hint, where a twentieth of all are."""
    values = [100 * row["marked"] for row in rows if row["marked"] is not None and row["stated"] < 0.95]
    return spread(values, "{:.1f}") if values else ""


def spread(values: Sequence[float], form: str) -> str:
    """Lowest to highest; one number where they are written alike."""
    ends = form.format(min(values)), form.format(max(values))
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def auroc(rows: list[Row]) -> str:
    """A column a kind of cohorts; and what Newcombe's method does alone where the rarer class scatters wider."""
    kinds = list(dict.fromkeys(row["scatter"] for row in rows))
    alone = ["twice"] if "twice" in kinds else []
    lines = []
    for size in dict.fromkeys(row["classes"] for row in rows):
        mine = [row for row in rows if row["classes"] == size]
        columns = [("covered", kind) for kind in kinds] + [("newcombe_alone", kind) for kind in alone]
        held = [[100 * row[name] for row in mine if row["scatter"] == kind] for name, kind in columns]
        lines.append([size, *(spread(values, "{:.1f}") if values else "" for values in held)])
    return table(["classes", *kinds, *(f"{kind}, Newcombe's method 5 by itself" for kind in alone)], lines)


def groups(rows: list[Row]) -> str:
    """A line a kind and size, a column for one fold and for five."""
    lines = []
    for kind, size in dict.fromkeys((row["kind"], row["patients"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["patients"]) == (kind, size)]
        lines.append([kind, size, *(cell([row for row in mine if row["folds"] == folds]) for folds in (1, 5))])
    return table(["kind", "patients", "one fold", "five folds"], lines)


def shares(rows: list[Row]) -> str:
    lines = []
    names = ("accuracy", "balanced_accuracy", "f1", "auprc", "brier")
    for size in dict.fromkeys(row["classes"] for row in rows):
        mine = [row for row in rows if row["classes"] == size]
        held = [[100 * row[name] for row in mine if row[name] is not None] for name in names]
        lines.append([size, *(spread(values, "{:.1f}") if values else "none" for values in held)])
    return table(["classes", "accuracy", "balanced accuracy", "F1", "AUPRC", "Brier"], lines)


def decisions(rows: list[Row]) -> str:
    headings = {"net benefit": "model", "less that of treating all": "versus_all"}
    lines = []
    for n in dict.fromkeys(row["patients"] for row in rows):
        mine = {row["figure"]: 100 * row["covered"] for row in rows if row["patients"] == n}
        line = [
            spread([v for name, v in mine.items() if name.endswith(f", {end}")], "{:.1f}") for end in headings.values()
        ]
        lines.append([str(n), *line, *(f"{mine[name]:.1f}" for name in ("slope", "intercept"))])
    return table(["patients", *headings, "slope", "intercept"], lines)


def paired(rows: list[Row]) -> str:
    lines = []
    for kind, n in dict.fromkeys((row["kind"], row["patients"]) for row in rows):
        told = []
        for row in rows:
            if (row["kind"], row["patients"]) == (kind, n) and row["stated"] * row["runs"] >= LEAST:
                share = "" if row["stated"] >= ALL else f" ({100 * row['stated']:.0f} %)"
                told.append(f"{row['figure']} {100 * row['called']:.1f}{share}")
        lines.append([kind, str(n), ", ".join(told)])
    return table(["kind", "patients", "figures: called different, per cent of those stated"], lines)


def numbers(rows: list[Row]) -> str:
    """Kinds of values that rules were found on, and others, a line each."""
    found_on = ("normal", "strong", "none", "long tails", "skewed")
    named = [{**row, "values": "found on" if row["values"] in found_on else "others"} for row in rows]
    figures = {"r2": ("r2",), "MAE": ("mae",), "Spearman": ("spearman",), "Pearson": ("pearson",)}
    return of_kind(("values", "patients"), figures)(named)


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "auroc_small": auroc,
    "auroc_large": auroc,
    "auroc_others": auroc,
    "auroc_unseen": auroc,
    "groups": groups,
    "shares": shares,
    "decisions": decisions,
    "paired": paired,
    "survival": of_kind(
        ("hazard", "patients", "events", "by_end"),
        {
            "c-index": ("c_index",),
            "Uno": ("uno_c_index",),
            "AUROC over time": ("auroc_time",),
            "Brier, integrated": ("ibs",),
        },
        marked="c_index",
    ),
    "competing": of_kind(
        ("hazard", "patients", "events_1", "events_2"),
        {
            "c-index": ("c_index_first", "c_index_second"),
            "Brier, integrated": ("ibs_first", "ibs_second"),
            "mean c-index": ("c_index",),
            "mean Brier": ("ibs",),
        },
    ),
    "classes": of_kind(
        ("classes", "patients"),
        {
            "AUROC": ("auroc",),
            "AUPRC": ("auprc",),
            "accuracy": ("accuracy",),
            "balanced accuracy": ("balanced_accuracy",),
            "F1": ("f1",),
            "Brier": ("brier",),
        },
    ),
    "levels": of_kind(
        ("trait", "patients"),
        {
            "kappa": ("quadratic_kappa",),
            "MAE": ("mae",),
            "within one": ("within_one",),
            "accuracy": ("accuracy",),
            "AUROC, mean": ("auroc",),
            "from 1": ("auroc_from_1",),
            "from 2": ("auroc_from_2",),
            "from 3": ("auroc_from_3",),
            "Brier": ("brier",),
        },
    ),
    "labels": of_kind(
        ("scores", "patients", "prevalence"),
        {
            "AUROC, mean": ("auroc",),
            "AUROC of a label": ("auroc_a", "auroc_b"),
            "AUPRC, mean": ("auprc",),
            "AUPRC of a label": ("auprc_a", "auprc_b"),
            "Brier of a label": ("brier_a", "brier_b"),
        },
    ),
    "numbers": numbers,
}


if __name__ == "__main__":
    main()
