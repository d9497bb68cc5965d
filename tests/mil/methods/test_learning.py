"""Every method learns planted bags and finds their witnesses, and learns nothing where there is nothing to learn."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import BagSource, SlideModel, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags

TRAIN, TEST, FRESH = 80, 60, 200


# What 80 bags with 8 % witnesses do not teach these two at their defaults in 15 epochs, and what does. A step of max
# learns from a row a class of each bag, so that it takes more of them: see its docstring. ins finds the witnesses as
# it is (.996) and pools ten rows where three to six are.
FIT: dict[str, dict[str, int]] = {"max": {"epochs": 40, "batch": 1}}
OPTIONS: dict[str, dict[str, int]] = {"ins": {"top_rows": 3}}


@cache
def planted() -> PlantedBags:
    return make_bags(TRAIN + TEST, rows=(40, 80), dim=16, witness_rate=0.08, shift=4.0)


def source_of(bags: PlantedBags, y: np.ndarray) -> BagSource:
    features = [
        Features(
            f"s{i:03d}",
            bags.bag(i).astype(np.float16),
            coords=bags.xy[bags.offsets[i] : bags.offsets[i + 1]].astype(np.int32),
            mpp=0.25,
            span=448.0,
        )
        for i in range(len(y))
    ]
    return BagSource(features, target=Target(torch.from_numpy(y)))


def trained(name: str, source: BagSource, **settings: int) -> SlideModel:
    method = AggregatorSettings(name=name, options=OPTIONS.get(name, {}))
    fit = FitSettings(device="cpu", lr=1e-3, **settings)
    return fit_bags(source.take(source.names[:TRAIN]), None, Classification(("no", "yes")), method, fit)


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_planted_bags_are_learnt_and_their_witnesses_found(name: str) -> None:
    bags = planted()
    source = source_of(bags, bags.y)
    model = trained(name, source, **{"epochs": 15, **FIT.get(name, {})})
    test = source.take(source.names[TRAIN:])
    assert roc_auc_score(bags.y[TRAIN:], model.predict(test)["p_yes"]) > 0.95

    output = model.output(test.bags(range(len(test))))
    if output.evidence is not None:
        score = (output.evidence[:, 1] - output.evidence[:, 0]).numpy()
    else:
        assert output.attention is not None
        score = output.attention.mean(1).numpy()
    rows = np.repeat(bags.y[TRAIN:] == 1, test.lengths)
    assert roc_auc_score(bags.witness[bags.offsets[TRAIN] :][rows], score[rows]) > 0.8


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_labels_without_meaning_are_not_learnt(name: str) -> None:
    bags = make_bags(TRAIN + FRESH, rows=(4, 12), dim=16, shift=0.0)
    y = np.random.default_rng(0).permutation(bags.y)
    source = source_of(bags, y)
    model = trained(name, source, epochs=8)
    p = model.predict(source.take(source.names[TRAIN:]))["p_yes"]
    # 200 test bags: the standard error of a chance AUROC is .041.
    assert abs(roc_auc_score(y[TRAIN:], p) - 0.5) < 0.1
