"""The times at which curves of survival are stated, where the settings name none: even steps, in three digits.

Each model has times of its own, from the patients that it learns from, so that nothing of its test patients is in its
risk, its hazards or its inner folds. Figures need the same times in all folds: even steps up to the earliest end of any
fold's own, made when every fold is there and used on finished models alone. With one fold both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from coverslip.base.study import TaskSettings
from coverslip.cohort.split import Split
from coverslip.cohort.targets import Targets

STEPS = 10
# Curves that went on to the longest follow-up would be judged on a patient or two.
_STILL_FOLLOWED = 0.1


def learnt_times(task: TaskSettings, targets: Targets, slides: Iterable[str]) -> tuple[float, ...]:
    """The times of a model that learns from these slides, in the unit of the table: those of the settings, else steps
    up to the time that a tenth of their patients were followed longer; none for targets that are no times."""
    if "event" not in targets.frame:
        return ()
    return tuple(map(float, task.times)) or _steps(_end(targets, slides))


def with_common_times(targets: Targets, task: TaskSettings, split: Split) -> Targets:
    """The targets with the times at which the models of all folds are judged (`Targets.grid`)."""
    if "event" not in targets.frame or task.times:
        return targets
    return replace(targets, grid=_steps(min(_end(targets, (*fold.train, *fold.tune)) for fold in split.folds)))


def _end(targets: Targets, slides: Iterable[str]) -> float:
    frame = targets.frame[targets.frame["slide"].isin(set(slides))]
    units = frame.drop_duplicates("patient") if targets.level == "patient" else frame
    return float(np.quantile(units["y"].to_numpy(np.float64), 1 - _STILL_FOLLOWED))


def _steps(last: float) -> tuple[float, ...]:
    return tuple(dict.fromkeys(float(f"{last * (i + 1) / STEPS:.3g}") for i in range(STEPS)))
