"""A store finds slides, reuses by fingerprint alone, and refuses files that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from coverslip.base.errors import FeatureError, TableError
from coverslip.store import FeatureStore, FeatureWriter, to_coverslip


def test_slides_are_found_by_name_in_any_accepted_type(tmp_path, written) -> None:
    written("b.1")
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    np.savez(tmp_path / "c.npz", features=np.ones((3, 4), np.float32))
    (tmp_path / "notes.csv").write_text("x")
    (tmp_path / ".hidden.h5").write_text("x")
    store = FeatureStore(tmp_path)
    assert store.names() == ["a", "b.1", "c"]
    assert store.find("b.1") == tmp_path / "b.1.h5"
    assert store.find("b") is None
    assert len(store.read("c")) == 3


def test_our_file_wins_over_another_of_the_same_slide(tmp_path, written, plan) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    written("a", plan)
    assert FeatureStore(tmp_path).names() == ["a"]
    assert FeatureStore(tmp_path).read("a").layout == "coverslip"


def test_reuse_is_by_fingerprint_and_not_by_existence(tmp_path, written, plan) -> None:
    written("a", plan)
    store = FeatureStore(tmp_path)
    assert store.has("a", plan.identity.fingerprint)
    assert not store.has("a", replace(plan.identity, mpp=0.26).fingerprint)
    assert not store.has("b", plan.identity.fingerprint)
    store.path("a").write_bytes(store.path("a").read_bytes()[:1000])
    assert not store.has("a", plan.identity.fingerprint)


def test_a_slide_without_features_says_where_they_might_be(tmp_path) -> None:
    (tmp_path / "h5_files").mkdir()
    np.save(tmp_path / "h5_files" / "a.npy", np.ones((3, 4)))
    with pytest.raises(FeatureError, match=r"^a: no features in .*set features\.store"):
        FeatureStore(tmp_path).read("a")
    with pytest.raises(FeatureError, match="holds no feature files"):
        FeatureStore(tmp_path / "nowhere").dim()


@pytest.mark.parametrize("slide", ["../a", "x/y", "..", "", "a\0b", "a\\b"])
def test_a_slide_name_never_leaves_the_store(tmp_path, slide) -> None:
    with pytest.raises(TableError, match="cannot be the name of a file"):
        FeatureStore(tmp_path / "store").read(slide)


def test_the_width_of_all_files_is_one_and_the_odd_file_is_named(tmp_path, written, plans) -> None:
    for name in ("a", "b", "d"):
        written(name, plans(30, 8))
    assert FeatureStore(tmp_path).dim() == 8
    written("c", plans(30, 9))
    with pytest.raises(FeatureError, match=r"^c: 9 numbers a row, while 3 other files have 8\."):
        FeatureStore(tmp_path).dim()
    assert FeatureStore(tmp_path).dim(["a", "b"]) == 8


def test_files_of_two_encoders_of_one_width_are_refused_with_both_names(tmp_path, written, plans) -> None:
    written("a", plans(encoder="texture"))
    written("b", plans(encoder="uni2"))
    with pytest.raises(FeatureError, match=r"^b: made by uni2.*a was made by texture"):
        FeatureStore(tmp_path).dim()


def test_files_of_two_scales_are_refused(tmp_path, written, plans) -> None:
    plan = plans()
    written("a", plan)
    coarse = replace(plan.identity, spec=replace(plan.identity.spec, mpp=1.0))
    written("b", replace(plan, identity=coarse))
    with pytest.raises(FeatureError, match=r"0\.5 µm/px|1 µm/px"):
        FeatureStore(tmp_path).dim()


def test_slides_of_different_scanners_belong_together(tmp_path, written, plans) -> None:
    plan = plans()
    written("a", plan)
    other = replace(plan.identity, mpp=0.5, span=224.0, slide_fingerprint="another", encoder=plan.identity.encoder)
    written("b", replace(plan, identity=other))
    assert FeatureStore(tmp_path).dim() == 8


def test_a_published_set_in_one_file_is_a_store(tmp_path) -> None:
    x = np.arange(20, dtype=np.float16).reshape(10, 2)
    path = tmp_path / "set.npz"
    np.savez(path, features=x, offsets=np.array([0, 3, 10]), slide_ids=np.array(["b", "a/1"]))
    store = FeatureStore(path)
    assert store.names() == ["a/1", "b"]
    np.testing.assert_array_equal(store.read("a/1").x, x[3:])
    assert store.dim() == 2
    assert store.find("c") is None
    with pytest.raises(FeatureError, match="no features in"):
        store.read("c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.ones((4, 2))}, "lacks offsets, slide_ids"),
        ({"features": np.ones((4, 2)), "offsets": [0, 5], "slide_ids": ["a"]}, "do not fit"),
        ({"features": np.ones((4, 2)), "offsets": [0, 3, 2, 4], "slide_ids": ["a", "b", "c"]}, "do not fit"),
        ({"features": np.ones((4, 2)), "offsets": [0, 2, 4], "slide_ids": ["a", "a"]}, "^a: .*twice"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(tmp_path, arrays, message) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(FeatureError, match=message):
        FeatureStore(tmp_path / "set.npz")


def test_an_empty_slide_of_a_set_is_named(tmp_path) -> None:
    np.savez(tmp_path / "s.npz", features=np.ones((4, 2)), offsets=[0, 0, 4], slide_ids=["a", "b"])
    with pytest.raises(FeatureError, match=r"^a: .*no rows"):
        FeatureStore(tmp_path / "s.npz").read("a")


def test_the_published_five_nearest_neighbours_come_out_exact(test_data) -> None:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    for name, expected in (("brca", 0.7738300898746104), ("lung", 0.8935382487870264)):
        path = test_data / "tcga_features" / f"tcga_{name}.npz"
        store = FeatureStore(path)
        with np.load(path) as arrays:
            slides, labels = arrays["slide_ids"].tolist(), arrays["labels"]
        means = np.stack([store.read(slide).x.astype(np.float32).mean(axis=0) for slide in slides])
        scores = []
        for train, test in StratifiedKFold(10, shuffle=True, random_state=0).split(means, labels):
            model = KNeighborsClassifier(5).fit(means[train], labels[train])
            scores.append(roc_auc_score(labels[test], model.predict_proba(means[test])[:, 1]))
        assert np.mean(scores) == pytest.approx(expected, abs=1e-12)


def test_what_killed_runs_left_is_tidied_and_unfinished_work_is_kept(tmp_path, written, plan, plans) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.put(np.arange(50), plan.rows)
        raise KeyboardInterrupt
    left = (tmp_path / ".a.rows").read_bytes()
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "b", plan.identity, plan.coords) as out:
        raise KeyboardInterrupt
    path: Path = written("a", plan)
    written("c", plans(encoder="old"))
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "c", plan.identity, plan.coords) as out:
        raise KeyboardInterrupt
    (tmp_path / ".a.rows").write_bytes(left)  # as if killed between the rename and the removal
    FeatureStore(tmp_path).tidy()
    assert path.exists()
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".b.rows", ".c.rows"]


def test_a_converted_file_never_counts_as_embedded(tmp_path, plan) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = plan.rows
    features = FeatureStore(tmp_path).read("x")
    to_coverslip(features, tmp_path / "new" / "x.h5")
    store = FeatureStore(tmp_path / "new")
    assert not store.has("x", plan.identity.fingerprint)
    assert store.read("x").identity is None
