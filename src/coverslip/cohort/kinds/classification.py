"""Classes from one column: two or more, as they stand there or grouped."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from coverslip.base.errors import SettingsError, TableError
from coverslip.base.study import TaskSettings
from coverslip.cohort.cohort import Cohort, Exclusion
from coverslip.cohort.kinds._columns import one_outcome
from coverslip.cohort.labels import label_text, natural_order
from coverslip.cohort.table import require_column, some
from coverslip.cohort.targets import Groups, Targets

ENTRIES = {
    "classification": {
        "build": "classification_targets",
        "summary": "two or more classes, one column",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    }
}

MAX_CLASSES = 20


def classification_targets(
    cohort: Cohort, task: TaskSettings, groups: Groups | None, expected: Sequence[str] | None
) -> Targets:
    """The class of each slide; slides without a value, or with one that belongs to no class, are exclusions.

    Classes stand in natural order: "0" before "1", "2" before "10".

    Raises:
        SettingsError: no column is named, or `classes` puts one value into two groups.
        TableError: the column is missing, empty, constant or looks like a measurement; a patient has two outcomes.
    """
    column = task.column
    if not column:
        raise SettingsError("task.column is not set.", fix="Name the column of the table that holds the classes.")
    require_column(cohort.frame, column, source=cohort.source, fix="task.column names the target.")
    table = cohort.frame
    rows = pd.DataFrame(
        {"row": table.index, "slide": table["slide"], "patient": table["patient"], "value": table[column]}
    ).sort_values("slide", ignore_index=True)
    if rows["value"].isna().all():
        raise TableError(
            f"{cohort.source}: column {column!r} has no value in any of its {len(rows)} rows.",
            fix="Fill it, or name another in task.column.",
        )
    said = rows["value"].map(label_text, na_action="ignore")
    classes, label_of, warnings = _classes(rows["value"].dropna(), column, groups, expected, cohort.source)
    rows["label"] = said.map(label_of, na_action="ignore")
    exclusions = [
        Exclusion(slide, f"no value in {column!r}" if pd.isna(value) else f"{column!r} = {value!r} is in no class")
        for slide, value, label in zip(rows["slide"], said, rows["label"])
        if pd.isna(label)
    ]
    rows = rows[rows["label"].notna()]
    _several_classes(rows["label"], column, classes, expected, cohort.source)
    if task.level == "patient":
        one_outcome(rows, rows["label"], f"column {column!r}", cohort.source)
    y = rows["label"].map({name: i for i, name in enumerate(classes)}).astype("int64")
    frame = pd.DataFrame({"slide": rows["slide"], "patient": rows["patient"], "y": y}).reset_index(drop=True)
    return Targets("classification", column, classes, task.level, frame, tuple(exclusions), tuple(warnings))


def _classes(
    values: pd.Series, column: str, groups: Groups | None, expected: Sequence[str] | None, source: str
) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    """The classes in order, the class of each value, and warnings."""
    found = natural_order({label_text(value) for value in values})
    if groups:
        label_of = _grouped(groups)
        absent = [value for value in label_of if value not in found]
        warnings = [f"cohort.classes names values that {column!r} does not hold: {some(absent)}."] if absent else []
        names = natural_order(groups)
        lost = [name for name in names if not any(label_of[v] == name for v in found if v in label_of)]
        if lost and expected is None:
            raise TableError(
                f"{source}: no row of column {column!r} belongs to class {some([repr(n) for n in lost])}.",
                fix=f"The column holds: {some([repr(v) for v in found], 20)}.",
            )
    else:
        label_of, warnings, names = {value: value for value in found}, [], found
        if expected is None:
            _refuse_measurements(values, column, found, source)
    if expected is not None:
        unknown = [name for name in names if name not in expected]
        if unknown:
            warnings.append(f"{column!r} holds values that the model has no class for: {some(unknown)}.")
        label_of = {value: name for value, name in label_of.items() if name in expected}
        names = list(expected)
    return tuple(names), label_of, warnings


def _grouped(groups: Groups) -> dict[str, str]:
    label_of: dict[str, str] = {}
    for name, values in groups.items():
        for value in values:
            text = label_text(value)
            if label_of.get(text, name) != name:
                raise SettingsError(
                    f"cohort.classes puts {text!r} into both {label_of[text]!r} and {name!r}.", fix="Keep it in one."
                )
            label_of[text] = name
    return label_of


def _refuse_measurements(values: pd.Series, column: str, found: list[str], source: str) -> None:
    fix = "Group values into classes with cohort.classes, or cut the column into classes in the table."
    if pd.api.types.is_float_dtype(values) and not (values == values.round()).all():
        example = next(float(v) for v in values if v != round(v))
        raise TableError(f"{source}: column {column!r} holds measurements (such as {example:g}), not classes.", fix=fix)
    if len(found) > MAX_CLASSES:
        raise TableError(
            f"{source}: column {column!r} has {len(found)} different values ({some(found)}); "
            f"classification takes up to {MAX_CLASSES}.",
            fix=fix,
        )


def _several_classes(
    labels: pd.Series, column: str, classes: Sequence[str], expected: Sequence[str] | None, source: str
) -> None:
    counts = labels.value_counts()
    fix = "Classification needs slides of at least two classes."
    if counts.empty:
        named = some([repr(name) for name in classes])
        raise TableError(f"{source}: no value of column {column!r} is one of the classes {named}.", fix=fix)
    if len(counts) == 1 and expected is None:
        only = f"all {counts.iloc[0]} slides with a value have {counts.index[0]!r}"
        raise TableError(f"{source}: column {column!r} is constant: {only}.", fix=fix)
