"""Where the class is in the order of rows, methods that see order learn it, and one that sees a set cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import BagSource, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features

TRAIN, TEST, ROWS, DIM = 160, 100, 12, 8


def ordered_bags() -> tuple[BagSource, np.ndarray]:
    """Every bag holds one row of each of two kinds, side by side; the class is which of them comes first."""
    rng = np.random.default_rng(3)
    y = np.arange(TRAIN + TEST) % 2
    features = []
    for number, first in enumerate(y):
        x = 0.3 * rng.standard_normal((ROWS, DIM))
        place = rng.integers(ROWS - 1)
        x[place, first] += 4
        x[place + 1, 1 - first] += 4
        features.append(Features(f"s{number:03d}", x.astype(np.float16), mpp=0.25, span=448.0))
    return BagSource(features, target=Target(torch.from_numpy(y))), y


def auroc(name: str, options: dict[str, int | float | bool | str], epochs: int) -> float:
    source, y = ordered_bags()
    settings = FitSettings(device="cpu", epochs=epochs, lr=2e-3)
    model = fit_bags(
        source.take(source.names[:TRAIN]),
        None,
        Classification(("no", "yes")),
        AggregatorSettings(name=name, options=options),
        settings,
    )
    return float(roc_auc_score(y[TRAIN:], model.predict(source.take(source.names[TRAIN:]))["p_yes"]))


@pytest.mark.parametrize(
    ("name", "options"),
    [("mambamil", {"hidden": 32, "layers": 1, "rate": 1, "dropout": 0.0}), ("transmil", {"hidden": 64})],
)
def test_methods_that_see_order_learn_it(name: str, options: dict[str, int | float | bool | str]) -> None:
    assert auroc(name, options, epochs=12) > 0.9


def test_attention_over_a_set_stays_at_chance() -> None:
    # 100 test bags: the standard error of a chance AUROC is .058.
    assert abs(auroc("abmil", {}, epochs=12) - 0.5) < 0.18
