from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from coverslip.base.errors import FeatureError, SettingsError
from coverslip.base.registry import EXPLAINERS
from coverslip.explainers import explain
from coverslip.mil import BagSource, SlideModel
from coverslip.store import Features
from coverslip.synthetic import PlantedBags

Models = dict[str, SlideModel]


def test_the_explainers_are_found() -> None:
    assert {"attention", "evidence"} <= set(EXPLAINERS.names())


@pytest.mark.parametrize("name", ["mean", "max", "abmil"])
def test_evidence_finds_the_planted_tiles(
    models: Models, slides: list[Features], planted: PlantedBags, name: str
) -> None:
    scores, truth = [], []
    for i in np.flatnonzero(planted.y == 1):
        scores.append(explain(models[name], slides[i], method="evidence").score)
        truth.append(planted.witness[planted.offsets[i] : planted.offsets[i + 1]])
    assert roc_auc_score(np.concatenate(truth), np.concatenate(scores)) > 0.8


def test_abmil_evidence_adds_up_to_the_log_odds_without_the_bias(models: Models, slides: list[Features]) -> None:
    model = models["abmil"]
    found = explain(model, slides[1], method="evidence")
    bias = model.aggregator.classifier.bias
    p = model.predict(slides[1])
    odds = np.log(p["p_lesion"].item() / p["p_benign"].item())
    assert found.score.sum() == pytest.approx(odds - float(bias[1] - bias[0]), abs=1e-4)


def test_attention_is_relative_to_an_even_share(models: Models, slides: list[Features]) -> None:
    found = explain(models["abmil"], slides[1], method="attention")
    assert found.score.mean() == pytest.approx(1.0, abs=1e-5)
    assert (found.kind, found.signed) == ("attention", False)


def test_auto_takes_evidence_and_looks_at_the_second_of_two_classes(models: Models, slides: list[Features]) -> None:
    found = explain(models["mean"], slides[0])
    assert (found.kind, found.target, found.signed, found.method) == ("evidence", "lesion", True, "evidence")
    against = explain(models["mean"], slides[0], target="benign")
    assert np.allclose(against.score, -found.score, atol=1e-6)


def test_scores_of_several_models_are_averaged(models: Models, slides: list[Features]) -> None:
    both = [models["abmil"], models["abmil 2"]]
    alone = [explain(model, slides[1]).score for model in both]
    found = explain(both, slides[1])
    assert np.allclose(found.score, np.mean(alone, axis=0), atol=1e-6)
    assert found.num_models == 2
    assert not np.allclose(alone[0], alone[1])


def test_scores_lie_where_the_tiles_lie(models: Models, slides: list[Features]) -> None:
    found = explain(models["abmil"], slides[2])
    assert np.array_equal(found.xy, slides[2].coords)
    assert (found.slide, found.span, found.mpp) == ("s002", 448.0, 0.5)


def test_a_method_without_attention_says_what_it_has(models: Models, slides: list[Features]) -> None:
    with pytest.raises(SettingsError, match=r"'mean' has no attention. It has evidence"):
        explain(models["mean"], slides[0], method="attention")


def test_an_unknown_explainer_or_class_is_told(models: Models, slides: list[Features]) -> None:
    with pytest.raises(SettingsError, match="attention, evidence"):
        explain(models["mean"], slides[0], method="saliency")
    with pytest.raises(SettingsError, match="Did you mean 'lesion'"):
        explain(models["mean"], slides[0], target="lesoin")


def test_without_positions_there_is_no_map(models: Models, without_positions: Features) -> None:
    with pytest.raises(FeatureError, match=r"no map can be drawn\. The file has no coords"):
        explain(models["mean"], without_positions)


def test_explaining_leaves_the_model_as_it_was(models: Models, slides: list[Features]) -> None:
    model = models["abmil"]
    before = model.predict(slides[:3])
    modes = [part.training for part in model.modules()]
    explain(model, slides[0])
    assert [part.training for part in model.modules()] == modes
    assert model.predict(BagSource(slides[:3])).equals(before)
