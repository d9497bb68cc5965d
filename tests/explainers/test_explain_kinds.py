"""Maps of what is no class: a number, a level, labels, a risk. Warm is higher, and the words say of what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import SettingsError
from coverslip.base.registry import TASKS
from coverslip.base.study import FitSettings
from coverslip.explainers import explain
from coverslip.explainers.picture import paint
from coverslip.mil import BagSource, SlideModel, Target, fit_bags, make_task
from coverslip.store import Features
from coverslip.synthetic import PlantedBags

# What the witness tiles speak for, and the words of the map.
WORDS = {
    "classification": ("b", "evidence for y = b", "not b"),
    "regression": ("higher value", "evidence for higher value of y", "lower value"),
    "ordinal": ("higher level", "evidence for higher level of y", "lower level"),
    "multilabel": ("b", "evidence for b", "not b"),
    "survival": ("higher risk", "evidence for higher risk", "lower risk"),
    "survival_cox": ("higher risk", "evidence for higher risk", "lower risk"),
    "survival_parametric": ("higher risk", "evidence for higher risk", "lower risk"),
    "competing_risks": ("higher risk of b", "evidence for higher risk of b", "lower risk of b"),
}
CLASSES = {"ordinal": ("1", "2", "3"), "classification": ("a", "b")}


def target_of(kind: str, lesion: np.ndarray) -> Target:
    """Bags with witnesses have the higher class, number and level, and the shorter time."""
    y, other = torch.from_numpy(lesion).long(), torch.arange(len(lesion)) // 2 % 2
    if kind == "classification":
        return Target(y)
    if kind == "ordinal":
        return Target(y * 2 - (y * other))  # 0, or 1 and 2
    if kind == "regression":
        return Target(50.0 + 10 * y.float() + other.float())
    if kind == "multilabel":
        return Target(torch.stack([other, y], 1).float())
    time = 9.0 - 6 * y.float() + other.float()
    return Target(time, event=1 + y if kind == "competing_risks" else torch.ones_like(y))


@pytest.fixture(scope="module", params=TASKS.names())
def model(request: pytest.FixtureRequest, planted: PlantedBags, slides: list[Features]) -> SlideModel:
    kind = request.param
    source = BagSource(slides, target=target_of(kind, planted.y))
    task = make_task(kind, classes=CLASSES.get(kind, ("a", "b")), grid=(2.0, 4.0, 8.0), weights="balanced", options={})
    settings = FitSettings(device="cpu", epochs=15, lr=1e-2, batch=20)
    return fit_bags(source, None, task, "mean", settings, column="y")


def test_a_map_of_any_kind_is_warm_where_the_tiles_speak_for_more(
    model: SlideModel, planted: PlantedBags, slides: list[Features]
) -> None:
    target, label, opposite = WORDS[model.task.kind]
    scores, witness = [], []
    for i in np.flatnonzero(planted.y == 1)[:8]:
        found = explain(model, slides[i], target=target)
        scores.append(found.score)
        witness.append(planted.witness[planted.offsets[i] : planted.offsets[i + 1]])
    assert roc_auc_score(np.concatenate(witness), np.concatenate(scores)) > 0.8
    assert (found.label, found.target, found.signed) == (label, target, True)
    low, high = found.limits
    assert low == -high
    # The tile that speaks most for it is warm in the picture, the one that speaks most against it cold.
    red, _, blue = found.colours().astype(int).T
    assert red[found.top(1)[0]] > blue[found.top(1)[0]]
    if found.score.min() < 0:
        assert blue[found.bottom(1)[0]] > red[found.bottom(1)[0]]
    assert found.image(mpp=56.0).size[0] >= 360
    names = {one["properties"]["classification"]["name"] for one in found.geojson()["features"]}
    assert names <= {target, opposite}
    assert np.nanmax(paint((64, 64), found.xy / 448, 1.0, found.score)) == pytest.approx(found.score.max())


def test_of_labels_and_causes_the_likeliest_is_explained(
    model: SlideModel, planted: PlantedBags, slides: list[Features]
) -> None:
    if model.task.kind not in ("multilabel", "competing_risks"):
        assert explain(model, slides[0]).target == WORDS[model.task.kind][0]
        return
    said = model.predict([slides[0]])[list(model.task.columns[:2])].to_numpy()[0]
    assert explain(model, slides[0]).target == model.task.explained[int(said.argmax())]
    with pytest.raises(SettingsError, match="nothing to explain by the name 'c'"):
        explain(model, slides[0], target="c")
