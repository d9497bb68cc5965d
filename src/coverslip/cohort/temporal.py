"""Folds along time: earlier patients are learnt from, later ones tested, as it will be when a model is put to use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise

from coverslip.base.errors import SettingsError, SplitError
from coverslip.base.study import SplitSettings
from coverslip.cohort.cohort import Cohort
from coverslip.cohort.folds import Hand, split_of
from coverslip.cohort.split import Split
from coverslip.cohort.table import nearest, some
from coverslip.cohort.targets import Targets

_ACCEPTED = "Accepted: dates as YYYY-MM-DD, or numbers such as years; one kind in the whole column."

# A time is days since year 1 for dates, and itself for numbers.
Time = float


def temporal_split(cohort: Cohort, targets: Targets, settings: SplitSettings) -> Split:
    """Folds cut by `split.time`: a fold trains on patients before its cut and tests those from it on, up to the next.

    A patient's time is that of their first slide; all their slides stay together, and how many reach over a cut is
    told. Without `split.cuts` there is one cut, after which the latest 1/folds of the patients lie. The cuts stand in
    `source` and in the folds' labels.

    Raises:
        SettingsError: `split.time` is not set, or the cuts do not rise.
        SplitError: the column is missing, holds something else than dates or numbers, or a side of a cut is empty.
    """
    column = settings.time
    if column is None:
        raise SettingsError(
            "split.time is not set.", fix="Name the column of dates or years, for split.design = 'temporal'."
        )
    times, dates = slide_times(cohort, targets, column)
    first: dict[str, Time] = {}
    last: dict[str, Time] = {}
    for slide, patient in targets.patient_of.items():
        first[patient] = min(times[slide], first.get(patient, times[slide]))
        last[patient] = max(times[slide], last.get(patient, times[slide]))
    cuts = [_cut(value, dates=dates) for value in settings.cuts] or [
        _default_cut(sorted(first.values()), settings.folds)
    ]
    if any(b <= a for a, b in pairwise(cuts)):
        raise SettingsError(f"split.cuts do not rise: {some([_said(c, dates=dates) for c in cuts])}.", fix="Sort them.")
    hands, warnings = [], []
    for index, (cut, end) in enumerate(zip(cuts, [*cuts[1:], float("inf")])):
        rest = sorted(patient for patient, time in first.items() if time < cut)
        test = sorted(patient for patient, time in first.items() if cut <= time < end)
        label = f"from {_said(cut, dates=dates)}" + (
            "" if end == float("inf") else f" to before {_said(end, dates=dates)}"
        )
        if not rest or not test:
            raise SplitError(
                f"The cut at {_said(cut, dates=dates)} leaves {len(rest)} patients before it and {len(test)} to test; "
                f"{column!r} runs from {_said(min(first.values()), dates=dates)} to "
                f"{_said(max(first.values()), dates=dates)}.",
                fix="Move the cut in split.cuts.",
                code="empty_side",
            )
        over = [patient for patient in rest if last[patient] >= cut]
        if over:
            warnings.append(
                f"{len(over)} training patients of fold {index} have slides from after the cut too ({some(over)}); a "
                "patient counts from the first slide, and all their slides are trained on."
            )
        hands.append(Hand(index, 0, test, rest, label=label))
    told = some([_said(cut, dates=dates) for cut in cuts], 6)
    source = f"temporal, by {column!r}: trained before, tested from {told} on"
    return split_of(hands, targets, settings, source, warnings=warnings)


def slide_times(cohort: Cohort, targets: Targets, column: str) -> tuple[dict[str, Time], bool]:
    """The time of each slide with a target, and whether these are dates (else numbers).

    Raises:
        SplitError: no such column, an empty cell, or a value that is neither; names the row.
    """
    if column not in cohort.frame:
        raise SplitError(
            f"{cohort.source} has no column {column!r}. {nearest(column, list(cohort.frame.columns))}",
            fix="split.time names the column of dates or years.",
            code="no_time",
        )
    wanted = set(targets.slides)
    frame = cohort.frame[cohort.frame["slide"].isin(wanted)]
    empty = [slide for slide, value in zip(frame["slide"], frame[column]) if value is None or value != value]
    if empty:
        raise SplitError(
            f"{len(empty)} of {len(frame)} slides have no {column!r} ({some(empty)}); on which side of a cut they "
            "belong is not known.",
            fix=f"Fill it, or leave them out with cohort.filter = \"{column} != ''\".",
            code="no_time",
        )
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in frame[column])
    times = {}
    for row, slide, value in zip(frame.index, frame["slide"], frame[column]):
        time = float(value) if numbers else _as_day(value)
        if time is None:
            raise SplitError(
                f"{cohort.source}, row {row}, column {column!r}: {value!r} is no date.", fix=_ACCEPTED, code="no_time"
            )
        times[slide] = time
    return times, not numbers


def _as_day(value: object) -> Time | None:
    if isinstance(value, date):
        return float(value.toordinal())
    try:
        return float(datetime.fromisoformat(str(value).strip()).date().toordinal())
    except ValueError:
        return None


def _cut(value: float | str, *, dates: bool) -> Time:
    day = _as_day(value) if dates and isinstance(value, str) else None if dates else value
    if day is None or isinstance(day, str):
        kind = "dates" if dates else "numbers"
        raise SettingsError(f"split.cuts: {value!r}, but the column holds {kind}.", fix="Give cuts as the column does.")
    return float(day)


def _default_cut(times: Sequence[Time], folds: int) -> Time:
    """The time from which on about the latest 1/folds of the patients lie; never the first time of all."""
    cut = times[len(times) - max(1, round(len(times) / folds))]
    later = [time for time in times if time > times[0]]
    if not later:
        raise SplitError("All patients have the same time: there is no earlier and no later.", code="empty_side")
    return max(cut, later[0])


def _said(time: Time, *, dates: bool) -> str:
    return date.fromordinal(int(time)).isoformat() if dates else f"{time:g}"
