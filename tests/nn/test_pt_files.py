"""`.pt` files give rows like every other layout, and nothing in them is ever executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coverslip.base.errors import FeatureError
from coverslip.nn.pt_files import read_pt
from coverslip.store import FeatureStore, convert_store

X = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "value",
    [X, X[None], {"features": X}, {"feats": X[None], "other": 1}, {"embeddings": X}, X.clone().requires_grad_()],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_mappings_give_the_same_rows(tmp_path, value, zipped) -> None:
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    features = FeatureStore(tmp_path, readers={".pt": read_pt}).read("a")
    np.testing.assert_array_equal(features.x, X.numpy())
    assert features.coords is None


def test_coords_come_along_and_bfloat16_becomes_float32(tmp_path) -> None:
    torch.save({"features": X.bfloat16(), "coords": torch.arange(14).reshape(7, 2)}, tmp_path / "a.pt")
    features = FeatureStore(tmp_path, readers={".pt": read_pt}, frame="level0_px").read("a")
    assert features.x.dtype == np.float32
    np.testing.assert_array_equal(features.coords, np.arange(14).reshape(7, 2))


def test_a_folder_of_pt_files_becomes_our_layout(tmp_path) -> None:
    source = tmp_path / "pt_files"
    source.mkdir()
    for name in ("a", "b"):
        torch.save(X, source / f"{name}.pt")
    done = convert_store(FeatureStore(source, readers={".pt": read_pt}), tmp_path / "out")
    assert all(one.error is None for one in done)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out").read("b").x, X.numpy().astype(np.float16))


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path) -> None:
    trap = tmp_path / "it_ran"
    torch.save({"features": X, "x": _Runs(trap)}, tmp_path / "a.pt")
    with pytest.raises(FeatureError, match="never loaded") as caught:
        read_pt(tmp_path / "a.pt")
    assert caught.value.code == "unsafe"
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip", b"\x80\x02garbage"])
def test_damaged_files_are_one_clear_error(tmp_path, content) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(FeatureError, match=r"^a: a\.pt"):
        read_pt(tmp_path / "a.pt")


def test_a_truncated_file_is_one_clear_error(tmp_path) -> None:
    path = tmp_path / "a.pt"
    torch.save(X, path)
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(FeatureError):
            read_pt(path)


@pytest.mark.parametrize("value", [{"weights": X}, [X, X], 3.0, {}])
def test_a_file_without_rows_says_what_it_holds(tmp_path, value) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(FeatureError, match="accepted: a tensor"):
        read_pt(tmp_path / "a.pt")


def test_whole_numbers_are_no_features(tmp_path) -> None:
    torch.save(torch.ones(3, 2, dtype=torch.long), tmp_path / "a.pt")
    with pytest.raises(FeatureError, match="int64; floating-point"):
        FeatureStore(tmp_path, readers={".pt": read_pt}).read("a")
