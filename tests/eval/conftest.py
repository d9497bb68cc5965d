"""Predictions with a known signal, as predictions.csv holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from coverslip.eval import FoldSize

TASK = {"kind": "classification", "column": "cancer", "classes": ["0", "1"]}


@pytest.fixture
def make_predictions() -> Callable[..., pd.DataFrame]:
    """A table of `patients` over `folds`, two slides a patient; `signal` 0 is chance."""

    def make(
        patients: int = 60,
        folds: int = 5,
        *,
        signal: float = 1.5,
        seed: int = 0,
        classes: Sequence[str] = ("0", "1"),
        slides: int = 2,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        rows = []
        for i in range(patients):
            label = (i // folds) % len(classes)
            for s in range(slides):
                logits = rng.normal(size=len(classes))
                logits[label] += signal
                p = np.exp(logits) / np.exp(logits).sum()
                row = {"slide": f"p{i}-{s}", "patient": f"p{i}", "fold": i % folds, "repeat": 0, "set": "test"}
                rows.append(row | {"cancer": classes[label]} | {f"p_{c}": v for c, v in zip(classes, p)})
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def sizes() -> Callable[..., list[FoldSize]]:
    """The sizes of equal folds."""

    def make(patients: int = 60, folds: int = 5) -> list[FoldSize]:
        return [FoldSize(k, train=patients - patients // folds, test=patients // folds) for k in range(folds)]

    return make
