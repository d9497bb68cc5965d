"""Embedding real files: drawn slides whose tiles are known, and one that is damaged."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from coverslip.base.geometry import Size, TileSpec
from coverslip.encoders import embed, encoder
from coverslip.encoders.texture import describe
from coverslip.slide import Slide
from coverslip.store import FeatureStore
from coverslip.synthetic import SlideRecipe, make_slide
from coverslip.tiles import plan


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    make_slide(path, SlideRecipe(seed=1, side_px=1024))
    return path


def test_rows_are_the_descriptor_of_each_tile(path, tmp_path):
    with Slide.open(path) as slide:
        tiles = plan(slide, None, TileSpec(224, 0.5))
        features = embed(slide, tiles, encoder("texture"), store=FeatureStore(tmp_path), batch=5)
        images = np.stack([slide.read(tiles.box(i), Size(224, 224)) for i in range(len(tiles))])
    assert len(features) == len(tiles) == 16
    np.testing.assert_allclose(features.x, describe(images), rtol=1e-3, atol=1e-3)


def test_a_copy_of_a_slide_under_its_name_is_the_same_slide(path, tmp_path):
    copy = tmp_path / "elsewhere" / "a.tif"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    prints = []
    for place in (path, copy):
        with Slide.open(place) as slide:
            features = embed(slide, plan(slide, None, TileSpec(448, 0.5)), encoder("texture"))
            prints.append(features.identity.fingerprint)
    assert prints[0] == prints[1]


def test_a_network_takes_tiles_of_another_size(path):
    with Slide.open(path) as slide:
        tiles = plan(slide, None, TileSpec(256, 0.5))
        features = embed(slide, tiles, encoder("timm:test_vit", "random"), batch=3)
    assert features.x.shape == (len(tiles), 64) and np.isfinite(np.asarray(features.x, np.float32)).all()


def test_an_encoder_travels_to_another_process():
    model = pickle.loads(pickle.dumps(encoder("texture")))  # noqa: S301 - our own bytes
    assert model.info == encoder("texture").info
