from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coverslip.base.errors import FeatureError, StoreError
from coverslip.base.geometry import TileSpec
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, SlideModel, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import EncoderIdentity, FeatureIdentity, Features
from coverslip.synthetic import PlantedBags

Make = Callable[[PlantedBags], list[Features]]


def identity(name: str = "alpha", *, mpp: float = 0.5, slide: str = "x") -> FeatureIdentity:
    encoder = EncoderIdentity(name, 8, source="hub", revision="1", pooling="cls", licence="CC BY-NC 4.0")
    return FeatureIdentity(encoder, TileSpec(mpp=mpp), 0.25, 448.0, slide, "tiles")


@pytest.fixture
def known(planted: PlantedBags, features_of: Make) -> list[Features]:
    """The planted features with an identity."""
    return [replace(f, identity=identity(slide=f.slide)) for f in features_of(planted)]


@pytest.fixture
def model(known: list[Features], planted: PlantedBags, quick: FitSettings) -> SlideModel:
    source = BagSource(known, target=Target(torch.from_numpy(planted.y)))
    return fit_bags(source, None, Classification(("no", "yes")), "abmil", quick, column="lesion")


def test_a_saved_model_predicts_the_same(model: SlideModel, known: list[Features], tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = SlideModel.load(tmp_path)
    assert loaded.card == model.card
    assert loaded.predict(known).equals(model.predict(known))
    assert not loaded.training
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["format"] == "coverslip.model/1"
    assert card["origin"]["attributes"]["encoder"] == "alpha"
    assert card["origin"]["licence"] == "CC BY-NC 4.0"
    assert card["task_arguments"]["classes"] == ["no", "yes"]
    assert card["column"] == "lesion"


def test_predictions_are_one_row_a_slide(model: SlideModel, known: list[Features]) -> None:
    source = BagSource(known, patients={f.slide: f"p{i % 3}" for i, f in enumerate(known)})
    table = model.predict(source)
    assert list(table.columns) == ["slide", "patient", "p_no", "p_yes"]
    assert list(table["slide"]) == [f.slide for f in known]
    assert np.allclose(table["p_no"] + table["p_yes"], 1)


def test_a_pooled_bag_gives_all_its_slides_its_value(model: SlideModel, known: list[Features]) -> None:
    source = BagSource(known[:4], patients={f.slide: f"p{i % 2}" for i, f in enumerate(known[:4])}, bag="patient")
    table = model.predict(source).set_index("slide")
    assert len(table) == 4
    assert table.loc["s000", "p_yes"] == table.loc["s002", "p_yes"]
    assert table.loc["s000", "p_yes"] != table.loc["s001", "p_yes"]


def test_a_prediction_does_not_depend_on_the_slides_beside_it(model: SlideModel, known: list[Features]) -> None:
    together = model.predict(known)["p_yes"].to_numpy()
    alone = np.array([model.predict(f)["p_yes"].item() for f in known])
    assert np.allclose(together, alone, atol=1e-6)


def test_predicting_leaves_no_trace(model: SlideModel, known: list[Features]) -> None:
    model.train()
    first = model.predict(known)
    assert model.training
    assert model.predict(known).equals(first), "dropout is on"


def test_features_of_another_encoder_are_refused_with_both_names(model: SlideModel, known: list[Features]) -> None:
    with pytest.raises(FeatureError) as caught:
        model.predict(replace(known[0], identity=identity("beta")))
    assert "alpha" in str(caught.value)
    assert "beta" in str(caught.value)
    assert caught.value.slide == "s000"


def test_features_at_another_scale_are_refused(model: SlideModel, known: list[Features]) -> None:
    with pytest.raises(FeatureError, match=r"1 µm/px.*0\.5 µm/px"):
        model.predict(replace(known[0], identity=identity(mpp=1.0)))


def test_features_of_unknown_origin_are_refused_by_a_model_that_knows_its_own(
    model: SlideModel, known: list[Features]
) -> None:
    with pytest.raises(FeatureError, match="does not name"):
        model.predict(replace(known[0], identity=None))


def test_features_of_another_width_are_refused(model: SlideModel) -> None:
    with pytest.raises(FeatureError, match="width 5, the model has 8"):
        model.predict(Features("wide", np.zeros((3, 5), np.float32)))


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_of_a_model_is_told(model: SlideModel, tmp_path: Path, name: str) -> None:
    model.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=name):
        SlideModel.load(tmp_path)


def test_weights_of_another_model_are_told(model: SlideModel, tmp_path: Path) -> None:
    model.save(tmp_path / "a")
    with torch.no_grad():
        model.standardise.mean += 1
    model.save(tmp_path / "b")
    (tmp_path / "b" / "weights.safetensors").replace(tmp_path / "a" / "weights.safetensors")
    with pytest.raises(StoreError, match="not those that"):
        SlideModel.load(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", '{"format": "coverslip.model/9"}', '{"format": "coverslip.model/1"}'])
def test_a_card_that_is_none_is_told(model: SlideModel, tmp_path: Path, text: str) -> None:
    model.save(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(StoreError, match=r"model\.json"):
        SlideModel.load(tmp_path)


def test_weights_that_do_not_fit_the_method_are_told(model: SlideModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    card["options"] = {"hidden": 7}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(StoreError, match="do not fit the method 'abmil'"):
        SlideModel.load(tmp_path)
