"""What the training slides look like, kept with a run, so that `predict` can flag slides that are unlike them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from coverslip.base.errors import FeatureError, StoreError
from coverslip.base.files import read_json, write_bytes, write_json
from coverslip.eval.ood import Likeness, likeness
from coverslip.recipes.job import Job
from coverslip.recipes.training_data import TrainingData
from coverslip.store import Features, RunFolder


def keep_likeness(job: Job, data: TrainingData) -> dict[str, Any]:
    """Fits the likeness of all slides that the run has learnt from and writes it; what metrics.json says of it."""
    settings = job.study.evaluation
    forget_likeness(job.run)
    try:
        found = likeness(slide_means(data.features), _patients(data), alpha=settings.alpha, seed=settings.seed)
    except FeatureError as error:
        return {"reason": error.message}
    arrays = io.BytesIO()
    np.savez(arrays, **found.arrays())  # type: ignore[arg-type]
    write_bytes(_arrays(job.run), arrays.getvalue())
    write_json(job.run.likeness, found.to_json())
    return {name: value for name, value in found.to_json().items() if name != "format"}


def read_likeness(run: RunFolder) -> Likeness | None:
    """The likeness that a run has kept; None where it has none.

    Raises:
        StoreError: its arrays are damaged or missing.
    """
    if not run.likeness.is_file():
        return None
    try:
        with np.load(_arrays(run), allow_pickle=False) as arrays:
            return Likeness.from_parts(read_json(run.likeness), dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{_arrays(run)} cannot be read: {error}.", fix="Train again.") from error


def forget_likeness(run: RunFolder) -> None:
    """Removes what another training left."""
    for path in (run.likeness, _arrays(run)):
        path.unlink(missing_ok=True)


def slide_means(features: Mapping[str, Features]) -> Float[ndarray, "n d"]:
    """The mean of each slide's rows, in the order of the mapping."""
    return np.stack([one.x.mean(axis=0, dtype=np.float64) for one in features.values()])


def _patients(data: TrainingData) -> list[str]:
    whose = data.targets.patient_of
    return [whose[slide] for slide in data.features]


def _arrays(run: RunFolder) -> Path:
    return run.likeness.with_suffix(".npz")
