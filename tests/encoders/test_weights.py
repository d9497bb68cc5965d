from __future__ import annotations

import hashlib
import socket
import time

import pytest
import torch
from huggingface_hub import errors as hub_errors
from safetensors.torch import save_file

from coverslip.base.errors import EncoderError
from coverslip.encoders import encoder_info
from coverslip.encoders import weights as module
from coverslip.encoders.weights import find_weights, load_strictly, read_state


def test_random_is_said_to_be_random():
    found = find_weights("uni", "random", "MahmoodLab/UNI")
    assert found.path is None and found.source == "random" and found.sha256 is None


def test_a_file_is_hashed_whole(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc" * 1000)
    found = find_weights("uni", str(path), None)
    assert found.sha256 == hashlib.sha256(b"abc" * 1000).hexdigest()
    path.write_bytes(b"abd" * 1001)
    assert find_weights("uni", str(path), None).sha256 != found.sha256


def test_nothing_given_is_an_error_that_names_the_three_ways():
    with pytest.raises(EncoderError, match=r"needs weights.*file.*hub id.*random"):
        find_weights("mine", None, None)


@pytest.mark.parametrize("text", ["missing.pth", "./missing.safetensors", "/no/such/folder/w.bin", "one/two/three"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(text):
    with pytest.raises(EncoderError, match="does not exist"):
        find_weights("uni", text, None)


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(EncoderError, match="is a folder"):
        find_weights("uni", str(tmp_path), None)


# The hub is never asked for real: what it answers is put in its place.


class _Hub:
    """A hub that answers each download with an error or a file; nothing is cached."""

    def __init__(self, monkeypatch, answer, *, reachable=True):
        self.answer, self.asked = answer, []
        monkeypatch.setattr(module, "hf_hub_download", self.download)
        monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(module, "get_session", lambda: self)
        self.reachable = reachable

    def head(self, url, timeout):
        if not self.reachable:
            raise ConnectionError("no route to host")

    def download(self, repo, name, *, revision, local_files_only=False):
        if local_files_only:
            raise hub_errors.LocalEntryNotFoundError("not cached")
        self.asked.append((repo, name, revision))
        answer = self.answer(name)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


def refused(kind):
    """An error of the hub's client without the HTTP response it is made from, which differs between its versions."""
    return type("Refused", (kind,), {"__init__": lambda self: None, "__str__": lambda self: "no"})()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (hub_errors.GatedRepoError, "gated, and this account has no access"),
        (hub_errors.RepositoryNotFoundError, "need an account with access"),
        (hub_errors.RevisionNotFoundError, "no revision 'main'"),
        (hub_errors.LocalEntryNotFoundError, "cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_three_ways_out(monkeypatch, kind, said):
    _Hub(monkeypatch, lambda name: refused(kind))
    with pytest.raises(EncoderError) as caught:
        encoder_info("uni2")
    text = str(caught.value)
    assert "'uni2'" in text and said in text
    assert "https://huggingface.co/MahmoodLab/UNI2-h" in text
    assert "HF_TOKEN" in text and "hf auth login" in text and "encoder.weights" in text


def test_a_hub_file_brings_its_commit(monkeypatch, tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").write_bytes(b"weights")

    def answer(name):
        return folder / name if name.endswith(".bin") else hub_errors.EntryNotFoundError("no such file")

    hub = _Hub(monkeypatch, answer)
    found = find_weights("uni", "hf-hub:a/b@v1", None)
    assert (found.source, found.revision) == ("a/b", "0123abcd")
    assert hub.asked == [("a/b", "model.safetensors", "v1"), ("a/b", "pytorch_model.bin", "v1")]


def test_a_repository_without_weights_says_which_files_it_lacks(monkeypatch):
    _Hub(monkeypatch, lambda name: hub_errors.EntryNotFoundError("no such file"))
    with pytest.raises(EncoderError, match=r"hold none of model\.safetensors, pytorch_model\.bin"):
        find_weights("uni", "a/b", None)


def test_an_unreachable_hub_is_told_at_once(monkeypatch):
    hub = _Hub(monkeypatch, lambda name: pytest.fail("asked although out of reach"), reachable=False)
    with pytest.raises(EncoderError, match="cannot be reached: no route to host"):
        encoder_info("midnight")
    assert hub.asked == []


def test_offline_mode_is_told(monkeypatch):
    _Hub(monkeypatch, lambda name: pytest.fail("asked although offline"))
    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="HF_HUB_OFFLINE is set"):
        encoder_info("lunit-vits16")


def test_the_real_client_fails_fast_where_nothing_listens(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(EncoderError, match="cannot be reached"):
        find_weights("mine", "coverslip-tests/no-such-repository", None)
    assert time.monotonic() - start < 5, "the client kept trying"


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", [{"a": _Evil()}, [1, 2], {"a": "text"}])
def test_files_that_hold_more_than_tensors_are_refused(tmp_path, content, capsys):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(EncoderError, match=r"w\.pth"):
        read_state(path, encoder="uni")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pth"])
@pytest.mark.parametrize("data", [b"", b"not weights at all", b"\x00" * 64])
def test_damaged_files_are_refused(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(EncoderError, match="cannot be read"):
        read_state(path, encoder="uni")


def test_wrapped_tables_are_unwrapped(tmp_path):
    tensors = {"a": torch.ones(2)}
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "w.ckpt")
    save_file(tensors, tmp_path / "w.safetensors")
    for path in tmp_path.iterdir():
        assert list(read_state(path, encoder="uni")) == ["a"]


def test_a_strict_load_names_what_does_not_fit():
    network = torch.nn.Linear(2, 3)
    with pytest.raises(EncoderError, match=r"1 missing \(bias\); 1 not known \(extra\); 1 of another shape \(weight"):
        load_strictly(network, {"weight": torch.ones(3, 4), "extra": torch.ones(1)}, encoder="mine", source="w.pth")
