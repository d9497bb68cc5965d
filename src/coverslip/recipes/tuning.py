"""Choosing among settings inside a fold: every candidate is fitted and scored on folds of the training patients.

The test patients of the outer fold are in no inner fold, so that its figure is of the whole procedure, choosing
included. Choosing on the outer folds and reporting the winner's figure would be too good (Varma and Simon 2006,
https://doi.org/10.1186/1471-2105-7-91). Candidates are compared by concordance within the inner test folds: AUROC, the
c-index, the share of pairs in the right order. Of equals the one that the grid names first is taken.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip._version import __version__
from coverslip.base.errors import SettingsError
from coverslip.base.files import finite, read_json, write_json
from coverslip.base.fingerprint import digest
from coverslip.base.settings import parse
from coverslip.base.study import Study
from coverslip.cohort import Fold, Split, inner_folds
from coverslip.eval.concordance import Concordance
from coverslip.mil.plan import check_plan
from coverslip.recipes.audits import tested_rows
from coverslip.recipes.fitting import fit_fold
from coverslip.recipes.training_data import TrainingData
from coverslip.store import RunFolder

FORMAT = "coverslip.tuning/1"
_CHOICE = "tuning.json"
_SECTIONS = ("fit", "aggregator")


def candidates(study: Study) -> list[tuple[dict[str, Any], Study]]:
    """Every combination of `tune.grid` with the study it makes; the study itself where there is no grid.

    Raises:
        SettingsError: a key that is no setting of fit or aggregator, or a value that it does not take.
    """
    grid = study.tune.grid
    for key, values in grid.items():
        if key.split(".")[0] not in _SECTIONS or "." not in key:
            raise SettingsError(
                f"tune.grid: {key!r} cannot be tuned.",
                fix='Accepted: settings of fit and aggregator, such as "fit.lr".',
            )
        if not values:
            raise SettingsError(f"tune.grid: {key!r} has no value to try.", fix="Give a list of values.")
    made = []
    for combination in product(*grid.values()):
        chosen = dict(zip(grid, combination))
        table = study.model_dump(exclude_none=True)
        for key, value in chosen.items():
            *path, name = key.split(".")
            inner = table
            for part in path:
                inner = inner.setdefault(part, {})
            inner[name] = value
        candidate = parse(Study, table, source="tune.grid")
        check_plan(candidate)
        made.append((chosen, candidate))
    return made


def choose_settings(study: Study, data: TrainingData, fold: Fold, folder: Path) -> Study:
    """The study with the settings that did best on the inner folds of one fold; what was tried is kept in `folder`.

    A choice that was made from the same data and settings is used again.

    Raises:
        SplitError: too few training patients for inner folds. FeatureError: as training raises.
    """
    record = folder / _CHOICE
    if not study.tune.grid:
        record.unlink(missing_ok=True)
        return study
    tried = candidates(study)
    inner = inner_folds(fold, data.targets, folds=study.tune.folds, seed=study.tune.seed, tune=study.split.tune)
    learnt = sorted({slide for one in inner for names in one.sets().values() for slide in names})
    made_from = digest(
        {
            "inner": [one.sets() for one in inner],
            "y": data.targets.frame[data.targets.frame["slide"].isin(learnt)].astype(str).to_numpy().tolist(),
            "rows": {slide: len(data.features[slide]) for slide in learnt},
            "candidates": [{"fit": s.fit.model_dump(), "aggregator": s.aggregator.model_dump()} for _, s in tried],
            "task": study.task.model_dump(),
            "coverslip": __version__,
        }
    )
    if record.is_file() and (kept := read_json(record)).get("digest") == made_from:
        return tried[int(kept["chosen"])][1]
    scores = [[_score(candidate, data, one) for one in inner] for _, candidate in tried]
    means = [float(np.nanmean(row)) if not np.isnan(row).all() else -np.inf for row in scores]
    best = int(np.argmax(means))
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "digest": made_from,
        "chosen": best,
        "candidates": [{"settings": chosen, "scores": row} for (chosen, _), row in zip(tried, scores)],
    }
    write_json(record, finite(told))
    return tried[best][1]


def collect_tuning(run: RunFolder, split: Split) -> None:
    """Writes tuning.json of the run from what each fold chose; none where nothing was tuned."""
    folds = [(fold, run.model(fold.name) / _CHOICE) for fold in split.folds]
    chosen = [(fold, read_json(path)) for fold, path in folds if path.is_file()]
    if not chosen:
        run.tuning.unlink(missing_ok=True)
        return
    write_json(
        run.tuning,
        {
            "format": FORMAT,
            "measure": "concordance within inner folds of the training patients",
            "folds": [
                {
                    "fold": fold.index,
                    "repeat": fold.repeat,
                    "chosen": told["candidates"][told["chosen"]]["settings"],
                    "candidates": told["candidates"],
                }
                for fold, told in chosen
            ],
        },
    )


def _score(study: Study, data: TrainingData, inner: Fold) -> float:
    """How a candidate that learnt from an inner fold ranks its test patients; NaN where there is no pair."""
    model = fit_fold(study, data, inner)
    return _concordance(model.predict(data.bags.take(inner.test)), data)


def _concordance(table: pd.DataFrame, data: TrainingData) -> float:
    tested, _ = tested_rows(table.assign(fold=0, set="test"), data.targets, data.unit)
    return float(Concordance(tested.contrasts, tested.fold)(np.ones((1, len(tested))))[0])
