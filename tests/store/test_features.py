"""Feature files of every layout give the same value, and bad ones one clear error that names the slide."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.errors import FeatureError
from coverslip.store import Features, read_features
from coverslip.store.rows import MappedRows, bad_rows

X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
XY = (np.arange(40).reshape(20, 2) * 512).astype(np.int64)


def save(
    path: Path, datasets: dict, *, attributes: dict | None = None, on_coords: dict | None = None, **options
) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, **options)
        file.attrs.update(attributes or {})
        if on_coords:
            file["coords"].attrs.update(on_coords)
    return path


def sent(features: Features) -> Features:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(features))  # noqa: S301 (our own bytes, of this moment)


def test_a_trident_file_gives_positions_and_span(tmp_path) -> None:
    on_coords = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
    path = save(tmp_path / "a.h5", {"features": X, "coords": XY}, on_coords=on_coords)
    features = read_features(path)
    assert (features.layout, features.span, features.mpp) == ("TRIDENT", 512, None)
    np.testing.assert_array_equal(features.coords, XY)
    assert features.centres_um is None
    assert "µm per pixel" in features.notes[0]
    np.testing.assert_allclose(read_features(path, mpp=0.25).centres_um, (XY + 256) * 0.25)


@pytest.mark.parametrize(
    ("facts", "span"),
    [
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024),
        ({"patch_size": 256, "patch_level": 1}, None),
    ],
)
def test_a_clam_file_gives_the_span_where_it_can_be_known(tmp_path, facts, span) -> None:
    features = read_features(save(tmp_path / "a.h5", {"features": X, "coords": XY}, on_coords=facts))
    assert (features.layout, features.span) == ("CLAM", span)
    assert (span is None) == any("how large its tiles are" in note for note in features.notes)


def test_a_stamp_file_keeps_um_and_gives_pixels_once_the_scale_is_known(tmp_path) -> None:
    um = XY.astype(np.float32) * 0.25
    attributes = {"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "extractor": "ctranspath"}
    path = save(tmp_path / "a.h5", {"feats": X.astype(np.float16), "coords": um}, attributes=attributes)
    features = read_features(path)
    assert (features.layout, features.encoder, features.coords) == ("STAMP", "ctranspath", None)
    np.testing.assert_allclose(features.centres_um, um + 128)
    scaled = read_features(path, mpp=0.25)
    np.testing.assert_array_equal(scaled.coords, XY)
    assert scaled.span == 1024
    np.testing.assert_allclose(scaled.centres_um, um + 128)


def test_an_atlaspatch_file_gives_its_one_encoder(tmp_path) -> None:
    coords = np.hstack([XY, np.full((20, 3), 7)])
    attributes = {"patch_size": 256, "patch_size_level0": 512}
    path = save(tmp_path / "a.h5", {"features/uni_v2": X, "coords": coords}, attributes=attributes)
    features = read_features(path)
    assert (features.layout, features.encoder, features.span) == ("AtlasPatch", "uni_v2", 512)
    np.testing.assert_array_equal(features.coords, XY)
    path = save(tmp_path / "b.h5", {"features/uni_v2": X, "features/resnet50": X, "coords": coords})
    with pytest.raises(FeatureError, match=r"several encoders \(resnet50, uni_v2\)"):
        read_features(path)


@pytest.mark.parametrize("rows", ["features", "feats"])
@pytest.mark.parametrize("positions", ["coords", "coordinates"])
def test_positions_of_unknown_frame_are_never_guessed(tmp_path, rows, positions) -> None:
    path = save(tmp_path / "a.h5", {rows: X, positions: XY})
    features = read_features(path)
    assert features.coords is None
    assert features.centres_um is None
    assert "level-0 pixels or µm" in features.notes[0]
    np.testing.assert_array_equal(read_features(path, frame="level0_px").coords, XY)
    np.testing.assert_array_equal(read_features(path, frame="um").corners_um, XY.astype(np.float32))
    np.testing.assert_array_equal(read_features(path, frame="um", mpp=0.5).coords, XY * 2)


def test_a_file_without_positions_says_so(tmp_path) -> None:
    features = read_features(save(tmp_path / "a.h5", {"features": X}))
    assert features.coords is None
    assert "no coords" in features.notes[0]


@pytest.mark.parametrize("options", [{}, {"chunks": (5, 6)}, {"chunks": (5, 6), "compression": "gzip"}])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("lead", [False, True])
def test_any_storage_and_float_gives_the_same_rows(tmp_path, options, dtype, lead) -> None:
    rows = X.astype(np.float16).astype(dtype)  # values that every one of these types holds
    if lead:
        rows, options = rows[None], ({"chunks": (1, 5, 6)} if options else {})
    features = read_features(save(tmp_path / "a.h5", {"features": rows}, **options))
    assert features.x.shape == (20, 6)
    assert features.x.dtype in (np.float16, np.float32)
    np.testing.assert_array_equal(features.x, X.astype(np.float16))
    assert isinstance(features.rows, MappedRows) == (not options and dtype in ("<f2", "<f4"))


@pytest.mark.parametrize("lead", [False, True])
def test_numpy_files_give_the_same_rows(tmp_path, lead) -> None:
    rows = X[None] if lead else X
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "b.npz", feats=rows, coords=XY)
    np.testing.assert_array_equal(read_features(tmp_path / "a.npy").x, X)
    features = read_features(tmp_path / "b.npz", frame="level0_px")
    np.testing.assert_array_equal(features.x, X)
    np.testing.assert_array_equal(features.coords, XY)


def _read_text(path: Path) -> dict:
    return {"features": np.loadtxt(path, ndmin=2), "coords": None}


def test_a_further_file_type_is_read_by_the_function_given_for_it(tmp_path) -> None:
    np.savetxt(tmp_path / "a.txt", X)
    features = read_features(tmp_path / "a.txt", readers={".txt": _read_text})
    np.testing.assert_allclose(features.x, X)
    np.testing.assert_allclose(sent(features).x, X)
    with pytest.raises(FeatureError, match=r"a\.txt is no feature file.*\.h5"):
        read_features(tmp_path / "a.txt")


def test_real_files_of_other_tools_are_read(test_data) -> None:
    folder = test_data / "feature_layouts"
    first = read_features(folder / "TCGA-3X-AAVA-01Z-00-DX1" / "features.h5", slide="TCGA-3X-AAVA-01Z-00-DX1")
    assert (len(first), first.dim, first.coords, first.slide) == (180, 512, None, "TCGA-3X-AAVA-01Z-00-DX1")
    path = folder / "TCGA-AD-6964-01Z-00-DX1" / "features.h5"
    second = read_features(path)
    assert (len(second), second.dim, second.coords) == (777, 512, None)
    told = read_features(path, frame="level0_px")
    # Three of its tiles lie beside it, named by their positions.
    places = {tuple(xy) for xy in told.coords.tolist()}
    assert {(16896, 20480), (22016, 11776), (23040, 25088)} <= places


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{}, {"chunks": (4, 6)}])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_rows_that_are_no_numbers_are_counted(tmp_path, value, options, dtype) -> None:
    rows = X.astype(dtype)
    rows[[4, 17], [0, 5]] = value
    path = save(tmp_path / "a.h5", {"features": rows}, **options)
    with pytest.raises(FeatureError, match=r"^a: 2 of 20 rows hold NaN or infinity \(the first is row 4\)") as caught:
        read_features(path)
    assert caught.value.slide == "a"
    assert str(path) in caught.value.__notes__[0]
    assert len(read_features(path, check=False)) == 20


@given(st.lists(st.floats(width=16), min_size=1, max_size=60))
def test_looking_at_bits_finds_what_isfinite_finds(values) -> None:
    rows = np.array(values, np.float16)[:, None]
    expected = ~np.isfinite(rows[:, 0])
    for kind in (np.float16, np.float32):
        count, first = bad_rows(rows.astype(kind))
        assert count == expected.sum()
        assert first == (int(expected.argmax()) if expected.any() else -1)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"features": X[:0]}, "no rows"),
        ({"features": X[0]}, r"shape \(6,\)"),
        ({"features": np.zeros((2, 20, 6), np.float32)}, r"shape \(2, 20, 6\)"),
        ({"features": np.zeros((20, 0), np.float32)}, r"shape \(20, 0\)"),
        ({"features": np.zeros((20, 6), np.int32)}, "int32; floating-point"),
        ({"features": np.array([b"a", b"b"])}, "floating-point"),
        ({"features": X, "coords": XY[:19]}, r"coords have shape \(19, 2\).*20 rows"),
        ({"features": X, "coords": XY[:, 0]}, r"coords have shape \(20,\)"),
        ({"features": X, "coords": XY * np.nan}, "coords hold NaN"),
        ({"embeddings": X}, "no dataset named features or feats; it holds embeddings"),
        ({}, "it holds nothing"),
    ],
)
def test_what_is_no_bag_of_rows_is_refused(tmp_path, datasets, message) -> None:
    with pytest.raises(FeatureError, match=message) as caught:
        read_features(save(tmp_path / "a.h5", datasets))
    assert caught.value.slide == "a"
    assert caught.value.exit_code == 2


def test_a_truncated_file_is_refused_at_every_length(tmp_path, written) -> None:
    path = written("a")
    whole = path.read_bytes()
    for size in [0, 1, 7, 100, 1000, 4000, len(whole) - 500, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(FeatureError, match=r"^a: .*HDF5.*embed the slide again"):
            read_features(path)


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.npy"])
def test_random_bytes_and_folders_are_refused(tmp_path, name) -> None:
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(FeatureError, match="cannot be read as"):
        read_features(path)
    path.unlink()
    with pytest.raises(FeatureError, match="there is no feature file"):
        read_features(path)
    path.mkdir()
    with pytest.raises(FeatureError, match="there is no feature file"):
        read_features(path)


def test_python_objects_in_numpy_files_are_never_loaded(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", features=np.array([{"x": 1}], dtype=object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(FeatureError, match="cannot be read"):
            read_features(tmp_path / name)


def test_a_file_of_a_newer_format_asks_for_an_update(tmp_path, written) -> None:
    path = written("a")
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "coverslip.features/9"
    with pytest.raises(FeatureError, match=r"features/9.*Update coverslip"):
        read_features(path)


def test_attributes_changed_by_hand_are_noticed(tmp_path, written) -> None:
    path = written("a")
    with h5py.File(path, "r+") as file:
        file.attrs["mpp"] = 0.5
    with pytest.raises(FeatureError, match="does not belong to the other attributes"):
        read_features(path)
    path = written("b")
    with h5py.File(path, "r+") as file:
        del file.attrs["encoder_revision"]
    with pytest.raises(FeatureError, match="'encoder_revision' is missing"):
        read_features(path)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(tmp_path, written, mpp) -> None:
    with pytest.raises(FeatureError, match="no number over 0"):
        read_features(written("a"), mpp=mpp)


def test_a_file_replaced_in_use_is_noticed(plans, written) -> None:
    features = read_features(written("a", plans(50)))
    written("a", plans(60))
    with pytest.raises(FeatureError, match="replaced while it was in use"):
        _ = features.x


def test_many_open_slides_hold_no_file_handles_and_travel_small(written, plan) -> None:
    path = written("a", plan)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("this system does not list open files")
    before = len(list(handles.iterdir()))
    cohort = [read_features(path) for _ in range(50)]
    assert len(list(handles.iterdir())) == before
    assert sum(float(features.x[0, 0]) for features in cohort) != 0
    assert len(pickle.dumps(cohort[0])) < 4000
    np.testing.assert_array_equal(sent(cohort[0]).x, plan.rows.astype(np.float16))


def test_features_say_what_they_are_in_one_line() -> None:
    rows = np.zeros((3, 4), np.float16)
    assert repr(Features("a", rows, encoder="texture")) == "<Features of a: 3 x 4 of texture, memory>"
