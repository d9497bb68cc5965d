from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from coverslip.base.errors import EncoderError, FeatureError, SettingsError, SlideError
from coverslip.base.geometry import Tiles, TileSpec
from coverslip.encoders import Encoder, EncoderInfo, describe, embed, encoder, encoder_identity, identity
from coverslip.slide import TileBatch
from coverslip.store import FeatureStore

INFO = EncoderInfo(
    name="colour",
    dim=3,
    input_px=None,
    mpp=(0.5, 0.5),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    resize="none",
    pooling="mean",
    source="test",
    revision="1",
    sha256=None,
    licence="Apache-2.0",
    gated=False,
)


class Colour(Encoder):
    """Mean colour of a tile: its answer is known. Counts what it is given, and can fail after some tiles."""

    def __init__(self, info=INFO, *, factor=1.0, fail_after=None):
        super().__init__()
        self.info = info
        self.scale = nn.Parameter(torch.tensor(factor), requires_grad=False)
        self.fail_after = fail_after
        self.seen: list[int] = []
        self.eval()

    def prepare(self, images):
        return images.permute(0, 3, 1, 2).float()

    def forward(self, x):
        if self.fail_after is not None and sum(self.seen) + len(x) > self.fail_after:
            raise KeyboardInterrupt
        self.seen.append(len(x))
        return x.mean(dim=(2, 3)) * self.scale


class FakeSlide:
    """A slide whose tile at (x, y) is of the colour (x, y, x + y), in level-0 px; some tiles are damaged."""

    def __init__(self, name="a", damaged=()):
        self.id, self.damaged, self.read = name, set(damaged), []
        self.closed = 0

    def fingerprint(self):
        return f"bytes of {self.id}"

    def tiles(self, tiles, *, batch=64, threads=2, exact=True):
        try:
            for start in range(0, len(tiles), batch):
                index = np.arange(start, min(start + batch, len(tiles)))
                xy = tiles.xy[index]
                self.read += [tuple(p) for p in xy.tolist()]
                ok = np.array([tuple(p) not in self.damaged for p in xy.tolist()])
                colours = np.concatenate([xy, xy.sum(axis=1, keepdims=True)], axis=1).astype(np.uint8)
                images = np.broadcast_to(colours[:, None, None], (len(index), 8, 8, 3)).copy()
                images[~ok] = 0
                yield TileBatch(images, index, ok, tuple("corrupt JPEG" for _ in range(int((~ok).sum()))))
        finally:
            self.closed += 1


def plan(n, *, mpp=0.5, slide="a"):
    xy = np.stack([np.arange(n), np.arange(n) * 2], axis=1).astype(np.int32)
    return Tiles(slide, TileSpec(8, mpp), 0.25, 8 * mpp / 0.25, xy, np.ones(n, dtype=np.float32))


def colours(n):
    return np.stack([np.arange(n), np.arange(n) * 2, np.arange(n) * 3], axis=1)


def test_rows_are_of_their_tiles_in_their_order():
    features = embed(FakeSlide(), plan(20), Colour(), batch=7)
    np.testing.assert_array_equal(features.x, colours(20))
    np.testing.assert_array_equal(features.coords, plan(20).xy)
    assert (features.slide, features.mpp, features.span) == ("a", 0.25, 16.0)


def test_a_file_and_memory_hold_the_same(tmp_path):
    store = FeatureStore(tmp_path)
    written, kept = embed(FakeSlide(), plan(20), Colour(), store=store), embed(FakeSlide(), plan(20), Colour())
    np.testing.assert_array_equal(written.x, kept.x)
    np.testing.assert_array_equal(written.coords, kept.coords)
    assert written.identity == kept.identity and written.x.dtype == kept.x.dtype == np.float16
    assert (written.mpp, written.span, written.encoder) == (kept.mpp, kept.span, kept.encoder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]


def test_the_size_of_batches_changes_nothing():
    rows = [embed(FakeSlide(), plan(23), Colour(factor=0.37), batch=batch).x for batch in (1, 5, 23, 64)]
    for other in rows[1:]:
        np.testing.assert_allclose(other, rows[0], rtol=1e-3)


def test_a_finished_file_is_used_again_without_reading_or_encoding(tmp_path):
    store = FeatureStore(tmp_path)
    embed(FakeSlide(), plan(20), Colour(), store=store)
    slide, model = FakeSlide(), Colour()
    again = embed(slide, plan(20), model, store=store)
    assert slide.read == [] and model.seen == []
    np.testing.assert_array_equal(again.x, colours(20))


@pytest.mark.parametrize(
    ("tiles", "info"),
    [
        (plan(19), INFO),
        (plan(20), replace(INFO, pooling="max")),
        (plan(20), replace(INFO, sha256="0" * 64)),
        (plan(20), replace(INFO, revision="2")),
        (plan(20), replace(INFO, std=(1.0, 1.0, 2.0))),
    ],
)
def test_whatever_decides_the_numbers_makes_them_anew(tmp_path, tiles, info):
    store = FeatureStore(tmp_path)
    embed(FakeSlide(), plan(20), Colour(), store=store)
    slide = FakeSlide()
    embed(slide, tiles, Colour(info), store=store)
    assert len(slide.read) == len(tiles)


def test_the_wording_of_a_licence_makes_nothing_anew():
    a, b = (identity(FakeSlide(), plan(3), replace(INFO, licence=text), "fp32") for text in ("MIT", "CC0"))
    assert a.fingerprint == b.fingerprint


def test_an_interrupted_slide_goes_on_where_it_stopped(tmp_path):
    store = FeatureStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        embed(FakeSlide(), plan(20), Colour(fail_after=12), store=store, batch=4)
    assert not (tmp_path / "a.h5").exists()
    slide, model = FakeSlide(), Colour()
    features = embed(slide, plan(20), model, store=store, batch=4)
    assert model.seen == [4, 4] and len(slide.read) == 8, "only what was missing is read and encoded"
    np.testing.assert_array_equal(features.x, colours(20))


def test_a_damaged_tile_is_named():
    slide = FakeSlide("case-7", damaged={(5, 10)})
    with pytest.raises(SlideError, match=r"case-7: tile 5 at \(5, 10\) cannot be read: corrupt JPEG") as caught:
        embed(slide, plan(20, slide="case-7"), Colour(), batch=4)
    assert caught.value.code == "decode_failed"
    assert slide.closed == 1, "reading goes on after the error, in a slide that may be closed"


def test_damaged_tiles_are_left_out_where_that_is_allowed(tmp_path):
    damaged = {(5, 10), (19, 38)}
    keep = np.setdiff1d(np.arange(20), [5, 19])
    for store in (None, FeatureStore(tmp_path)):
        features = embed(FakeSlide(damaged=damaged), plan(20), Colour(), batch=4, store=store, on_bad="skip")
        np.testing.assert_array_equal(features.x, colours(20)[keep])
        np.testing.assert_array_equal(features.coords, plan(20).xy[keep])
        assert [(s.index, s.reason) for s in features.skipped] == [(5, "corrupt JPEG"), (19, "corrupt JPEG")]


def test_a_slide_of_damaged_tiles_alone_gives_no_features(tmp_path):
    damaged = {(i, 2 * i) for i in range(6)}
    for store in (None, FeatureStore(tmp_path)):
        with pytest.raises(FeatureError, match="none of the 6 tiles"):
            embed(FakeSlide(damaged=damaged), plan(6), Colour(), store=store, on_bad="skip")


def test_another_scale_is_refused_before_anything_is_read():
    slide = FakeSlide()
    with pytest.raises(EncoderError, match=r"at 1 µm/px.*'colour'.*0\.5 µm/px"):
        embed(slide, plan(5, mpp=1.0), Colour())
    assert slide.read == []


def test_training_mode_is_refused():
    with pytest.raises(EncoderError, match="training mode"):
        embed(FakeSlide(), plan(5), Colour().train())


def test_no_tiles_are_refused(tmp_path):
    for store in (None, FeatureStore(tmp_path)):
        with pytest.raises(FeatureError, match="no tiles"):
            embed(FakeSlide(), plan(0), Colour(), store=store)


@pytest.mark.parametrize("factor", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("stored", [True, False])
def test_a_number_that_float16_cannot_hold_is_never_infinity(tmp_path, factor, stored):
    with pytest.raises(FeatureError, match=r"float16|NaN"):
        embed(FakeSlide(), plan(5), Colour(factor=factor), store=FeatureStore(tmp_path) if stored else None)
    assert not (tmp_path / "a.h5").exists()


def test_an_unknown_way_with_damage_is_refused():
    with pytest.raises(SettingsError, match="Accepted: fail, skip"):
        embed(FakeSlide(), plan(5), Colour(), on_bad="ignore")


def test_the_identity_tells_all_of_the_encoder():
    made = identity(FakeSlide(), plan(5), describe("virchow2"), "bf16")
    assert made.encoder.pooling == "cls+mean" and made.encoder.precision == "bf16"
    assert made.encoder.preprocessing == ("224 px, resize bicubic 224, mean 0.485 0.456 0.406, sd 0.229 0.224 0.225")
    assert made.encoder.licence == "CC-BY-NC-ND-4.0" and made.slide_fingerprint == "bytes of a"


def test_half_precision_is_another_identity_of_the_same_kind():
    a, b = (identity(FakeSlide(), plan(5), INFO, precision) for precision in ("fp32", "bf16"))
    assert a.fingerprint != b.fingerprint and a.kind == b.kind


def test_the_identity_is_known_before_the_encoder_is_built(tmp_path):
    made = identity(FakeSlide(), plan(5), describe("texture"), "fp32")
    assert made.encoder == encoder_identity(encoder("texture").info, "fp32")


def test_progress_counts_every_tile():
    class Counted:
        def __init__(self):
            self.done, self.total = 0, None

        def stage(self, name, total, *, unit):
            self.total = total
            return self

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def advance(self, n=1, *, note=""):
            self.done += n

        def say(self, message): ...

    counted = Counted()
    embed(FakeSlide(damaged={(3, 6)}), plan(10), Colour(), batch=4, on_bad="skip", progress=counted)
    assert counted.done == counted.total == 10
