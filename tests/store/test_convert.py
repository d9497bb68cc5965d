"""Features travel to other tools and back; what a layout needs and nobody knows is an error, never a guess."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from coverslip.base.errors import FeatureError
from coverslip.store import (
    Features,
    FeatureStore,
    FeatureWriter,
    convert_store,
    read_features,
    to_clam,
    to_coverslip,
    to_npz,
    to_stamp,
    to_trident,
)


@pytest.mark.parametrize(
    ("write", "layout", "name"),
    [(to_trident, "TRIDENT", "b.h5"), (to_clam, "CLAM", "b.h5"), (to_npz, "npz", "b.npz"), (to_stamp, "STAMP", "b.h5")],
)
def test_rows_positions_and_size_come_back_from_every_layout(tmp_path, written, plan, write, layout, name) -> None:
    ours = read_features(written("a", plan))
    back = read_features(write(ours, tmp_path / name), mpp=0.25)
    assert back.layout == layout
    np.testing.assert_array_equal(back.x, ours.x)
    np.testing.assert_array_equal(back.coords, ours.coords)
    assert back.span == ours.span
    np.testing.assert_allclose(back.centres_um, ours.centres_um)
    again = read_features(to_coverslip(back, tmp_path / "c.h5"))
    np.testing.assert_array_equal(again.x, ours.x)
    np.testing.assert_array_equal(again.coords, ours.coords)
    assert (again.layout, again.mpp, again.span) == ("coverslip", 0.25, 448)


def test_what_each_tool_looks_for_is_where_it_looks(tmp_path, written, plan) -> None:
    ours = read_features(written("a", plan))
    with h5py.File(to_trident(ours, tmp_path / "t.h5")) as file:
        assert set(file) == {"features", "coords"}
        assert file["coords"].attrs["patch_size_level0"] == 448
        assert file["coords"].attrs["patch_size"] == 224
    with h5py.File(to_stamp(ours, tmp_path / "s.h5")) as file:
        assert set(file) == {"feats", "coords"}
        assert (file.attrs["unit"], file.attrs["tile_size_um"], file.attrs["tile_size_px"]) == ("um", 112.0, 224)
        np.testing.assert_allclose(file["coords"][()], plan.coords * 0.25)


def test_our_file_copied_keeps_its_identity_and_skipped_tiles(tmp_path, plan) -> None:
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.skip(3, "damaged")
        out.put(out.missing(), plan.rows[out.missing()])
    ours = read_features(tmp_path / "a.h5")
    again = read_features(to_coverslip(ours, tmp_path / "new" / "a.h5"))
    assert again.identity == plan.identity
    assert again.skipped == ours.skipped
    assert FeatureStore(tmp_path / "new").has("a", plan.identity.fingerprint)


@pytest.mark.parametrize("write", [to_trident, to_clam, to_stamp])
def test_a_layout_that_needs_positions_refuses_features_without(tmp_path, write) -> None:
    features = Features("a", np.ones((3, 2), np.float32), notes=("The file has no coords.",))
    with pytest.raises(FeatureError, match=r"^a: (coords|mpp) is not known.*no coords"):
        write(features, tmp_path / "b.h5")
    assert list(tmp_path.iterdir()) == []


def test_positions_in_um_without_a_scale_are_not_dropped_silently(tmp_path) -> None:
    features = Features("a", np.ones((3, 2), np.float32), corners_um=np.zeros((3, 2), np.float32), span_um=112.0)
    with pytest.raises(FeatureError, match=r"coords are in µm.*Give mpp"):
        to_coverslip(features, tmp_path / "b.h5")
    assert read_features(to_stamp(features, tmp_path / "s.h5")).span_um == 112


def test_numbers_beyond_float16_are_refused_and_no_file_is_left(tmp_path) -> None:
    with pytest.raises(FeatureError, match="does not fit into float16"):
        to_coverslip(Features("a", np.full((3, 2), 1e6, np.float32)), tmp_path / "b.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_converted_and_a_bad_slide_keeps_no_other_out(tmp_path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a", "b", "c"):
        np.savez(source / f"{name}.npz", features=np.ones((4, 3)), coords=np.zeros((4, 2), np.int64))
    (source / "b.npz").write_bytes(b"damaged")
    done = convert_store(FeatureStore(source, frame="level0_px"), tmp_path / "out", mpp={"a": 0.5})
    assert [one.slide for one in done] == ["a", "b", "c"]
    assert [one.error is None for one in done] == [True, False, True]
    assert done[1].error is not None
    assert done[1].error.slide == "b"
    store = FeatureStore(tmp_path / "out")
    assert store.names() == ["a", "c"]
    assert (store.read("a").mpp, store.read("c").mpp) == (0.5, None)
    assert any("µm per pixel" in note for note in done[2].notes)
    assert store.dim() == 3


def test_a_published_set_becomes_a_folder(tmp_path) -> None:
    x = np.arange(20, dtype=np.float16).reshape(10, 2)
    np.savez(tmp_path / "set.npz", features=x, offsets=[0, 3, 10], slide_ids=["a", "b"])
    convert_store(FeatureStore(tmp_path / "set.npz"), tmp_path / "out")
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out").read("b").x, x[3:])


def test_the_same_folder_and_unknown_layouts_are_refused(tmp_path, written) -> None:
    written("a")
    store = FeatureStore(tmp_path)
    with pytest.raises(FeatureError, match="read and written at once"):
        convert_store(store, tmp_path / "." / "")
    with pytest.raises(FeatureError, match=r"no layout 'zarr'.*Accepted: coverslip, trident, clam, stamp, npz"):
        convert_store(store, tmp_path / "out", layout="zarr")
