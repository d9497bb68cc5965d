"""Where the class is in the order of rows, methods that see order learn it, and one that sees a set cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import Bags, BagSource, Target, build_aggregator, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.testing.aggregators import DIM as CONTRACT_DIM
from coverslip.testing.aggregators import example_bags

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


def moved(name: str, options: dict[str, int | float | bool | str], dead: tuple[str, ...] = ()) -> float:
    """How far a shuffle of 30 rows moves the logits, with the parameters of these names set to 0."""
    torch.manual_seed(0)
    method = build_aggregator(name, CONTRACT_DIM, 3, {"hidden": 16, **options}).double().eval()
    with torch.no_grad():
        for key, value in method.named_parameters():
            if any(part in key for part in dead):
                value.zero_()
    (bag,) = example_bags((30,)).unpack()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = Bags(bag.x[order], bag.offsets, None, bag.slides)
    return float((method(bag).logits - method(shuffled).logits).detach().abs().max())


SQUARE, ALONG, SCAN = "square.", "convolution.", "parameters_of_rows."
ONE_REGION = {"regions": 1, "least_rows": 36, "most_rows": 64}


@pytest.mark.parametrize(
    ("name", "options", "dead"),
    [
        ("transmil", {"landmarks": 64}, (SQUARE,)),
        ("transmil", {"landmarks": 64}, (ALONG,)),
        ("transmil", {"landmarks": 5}, (SQUARE, ALONG)),  # landmarks are means of neighbours
        ("rrt", {"regions": 3, "least_rows": 4, "positions": 0}, ()),
        ("rrt", {**ONE_REGION, "positions": 5}, ()),
        ("mambamil", {"kernel": 1, "layers": 1}, ()),
        ("mambamil", {"kernel": 4, "layers": 1}, (SCAN,)),
    ],
)
def test_each_part_that_sees_order_does_so_by_itself(
    name: str, options: dict[str, int | float | bool | str], dead: tuple[str, ...]
) -> None:
    assert moved(name, options, dead) > 1e-5


@pytest.mark.parametrize(
    ("name", "options", "dead"),
    [
        ("transmil", {"landmarks": 64}, (SQUARE, ALONG)),
        ("rrt", {**ONE_REGION, "positions": 0}, ()),
        ("mambamil", {"kernel": 1, "layers": 1}, (SCAN,)),
    ],
)
def test_without_those_parts_a_bag_is_a_set(
    name: str, options: dict[str, int | float | bool | str], dead: tuple[str, ...]
) -> None:
    assert moved(name, options, dead) < 1e-12
