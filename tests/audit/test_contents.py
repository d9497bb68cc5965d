"""What is kept of slides: the same picture is found in another cohort, and what is not known is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coverslip.audit import Content, contents_json, not_compared, read_contents, shared_pictures, sketch, sketch_digest
from coverslip.base.errors import StoreError
from coverslip.preflight.likeness import fingerprint


def _picture(seed: int, turns: int = 0) -> Content:
    coarse = np.random.default_rng(seed).integers(80, 255, (16, 16, 3)).astype(np.uint8)
    image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    return Content(f"file{seed}{turns}", fingerprint(np.ascontiguousarray(np.rot90(image, turns))), (1000, 1000), None)


def test_a_turned_copy_in_another_cohort_is_found_and_other_slides_are_not() -> None:
    known = {f"k{i}": _picture(i) for i in range(6)}
    new = {"copy": _picture(3, turns=1), "other": _picture(50)}
    assert shared_pictures(known, new) == (("k3", "copy"),)


def test_the_same_file_is_left_to_its_digest_and_pictures_of_one_cohort_are_not_paired() -> None:
    assert shared_pictures({"a": _picture(1), "b": _picture(1, turns=2)}, {"c": _picture(9)}) == ()
    assert shared_pictures({"a": _picture(1)}, {"b": _picture(1)}) == ()


def test_contents_survive_the_trip_through_json() -> None:
    kept = {"a": _picture(1), "b": Content(features="00ff")}
    assert read_contents(json.loads(json.dumps(contents_json(kept)))) == kept
    assert read_contents({}) == {}
    with pytest.raises(StoreError, match=r"coverslip\.contents/2"):
        read_contents({"format": "coverslip.contents/2"})


def test_what_either_side_does_not_know_is_said() -> None:
    known, new = {"a": _picture(1), "b": Content()}, {"c": Content(image="x", features="y")}
    assert not_compared(known, new) == {
        "image": "not known of 1 of 2 training slides",
        "picture": "not known of 1 of 2 training slides and 1 of 1 new slides",
        "features": "not known of 2 of 2 training slides",
    }
    assert not_compared({}, {})["image"] == "not known of 0 of 0 training slides and 0 of 0 new slides"


def test_equal_rows_have_equal_sketch_digests() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    assert sketch_digest(sketch(rows)) == sketch_digest(sketch(rows.copy()))
    assert sketch_digest(sketch(rows)) != sketch_digest(sketch(rows + np.float16(1)))
