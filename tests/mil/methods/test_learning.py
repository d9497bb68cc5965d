"""Every method learns planted bags and finds their witnesses, and learns nothing where there is nothing to learn."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, SlideModel, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags

TRAIN, TEST = 80, 60


@cache
def planted(shift: float = 4.0) -> PlantedBags:
    return make_bags(TRAIN + TEST, rows=(20, 60), dim=16, witness_rate=0.15, shift=shift)


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


def trained(name: str, source: BagSource, epochs: int) -> SlideModel:
    settings = FitSettings(device="cpu", epochs=epochs, lr=1e-3)
    return fit_bags(source.take(source.names[:TRAIN]), None, Classification(("no", "yes")), name, settings)


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_planted_bags_are_learnt_and_their_witnesses_found(name: str) -> None:
    bags = planted()
    source = source_of(bags, bags.y)
    model = trained(name, source, epochs=15)
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
    bags = planted(shift=0.0)
    rng = np.random.default_rng(0)
    y = rng.permutation(bags.y)
    model = trained(name, source_of(bags, y), epochs=2)
    test = source_of(bags, y)
    p = model.predict(test.take(test.names[TRAIN:]))["p_yes"]
    # 60 test bags: the standard error of a chance AUROC is .075.
    assert abs(roc_auc_score(y[TRAIN:], p) - 0.5) < 0.2
