"""Weights: a local file, a hub id or "random", found, hashed and loaded without surprises.

Nothing is ever substituted: weights that are gated, out of reach or of another architecture are an error that says
where to ask, what to set, and how to use a file of one's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from coverslip.base.errors import EncoderError

# Names under which weights are published, the safest format first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
RANDOM = "random"
_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt", ".ckpt"}
_HUB_ID = re.compile(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_PROBE_SECONDS = 10


@dataclass(frozen=True)
class Weights:
    """Which weights: `path` is None for random ones."""

    path: Path | None
    source: str
    revision: str
    sha256: str | None


def find_weights(encoder: str, weights: str | None, default: str | None) -> Weights:
    """The weights that a setting means: "random", a file, or a hub id (`default` where nothing is given).

    Raises:
        EncoderError: no such file, gated, out of reach, or nothing given and no default.
    """
    text = weights if weights is not None else default
    if text is None:
        raise EncoderError(
            f"The encoder {encoder!r} needs weights.",
            fix='Set encoder.weights to a file (.safetensors, .pth, .bin), to a hub id ("owner/name"), '
            'or to "random" for untrained weights.',
        )
    if text == RANDOM:
        return Weights(None, source=RANDOM, revision="seed 0", sha256=None)
    path = Path(text).expanduser()
    if path.is_file():
        return Weights(path, source=f"file:{path.name}", revision="", sha256=file_sha256(path))
    match = _HUB_ID.fullmatch(text)
    if path.suffix.lower() in _SUFFIXES or path.is_dir() or not match:
        what = "is a folder" if path.is_dir() else "does not exist"
        raise EncoderError(
            f"The weights of the encoder {encoder!r}: {text} {what}.",
            fix='Give a file (.safetensors, .pth, .bin), a hub id ("owner/name"), or "random".',
        )
    file = _from_hub(encoder, match[1], match[2] or "main")
    return Weights(file, source=match[1], revision=_commit(file) or match[2] or "main", sha256=file_sha256(file))


def file_sha256(path: Path) -> str:
    """64 hex digits of the whole file; remembered as long as its size and time stay the same."""
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path, *, encoder: str) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU. Pickled code is never run.

    Raises:
        EncoderError: the file is damaged, holds more than tensors, or is no weights file.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(
            f"The weights of the encoder {encoder!r} cannot be read from {path}: {reason}.",
            fix="Download the file again; files that hold more than tensors are not loaded.",
        ) from error
    for key in ("state_dict", "model"):  # how training scripts wrap them
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise EncoderError(
            f"{path} holds no plain table of tensors, so it is no weights file for the encoder {encoder!r}.",
            fix="Save the network's state_dict alone.",
        )
    return dict(content)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, encoder: str, source: str) -> None:
    """Puts `state` into the network, which may be on the meta device; every name and shape must fit.

    Raises:
        EncoderError: naming what is missing, left over or of another shape.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or extra or shapes:
        parts = [("missing", missing), ("not known", extra), ("of another shape", shapes)]
        told = "; ".join(f"{len(names)} {what} ({_few(names)})" for what, names in parts if names)
        raise EncoderError(
            f"The weights {source} are not of the encoder {encoder!r}: {told}.",
            fix="Use the weights its authors publish, or the encoder these weights belong to.",
        )
    network.load_state_dict(
        {name: state[name].to(tensor.dtype) for name, tensor in wanted.items()}, strict=True, assign=True
    )


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _from_hub(encoder: str, repo: str, revision: str) -> Path:
    """The weights file of a hub repository, from the local cache where it is there already."""
    for name in HUB_FILES:
        try:
            return Path(hf_hub_download(repo, name, revision=revision, local_files_only=True))
        except (EntryNotFoundError, OSError):  # LocalEntryNotFoundError is both
            continue
    _reach_hub(encoder, repo)
    for name in HUB_FILES:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except LocalEntryNotFoundError as error:  # the hub went away in between
            raise _hub_error(encoder, repo, f"cannot be reached: {_first_line(error)}") from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise _hub_error(encoder, repo, "are gated, and this account has no access") from error
        except RevisionNotFoundError as error:
            raise _hub_error(encoder, repo, f"have no revision {revision!r}") from error
        except RepositoryNotFoundError as error:
            raise _hub_error(encoder, repo, "do not exist there, or need an account with access") from error
        except (HfHubHTTPError, HTTPError, OSError) as error:
            raise _hub_error(encoder, repo, f"cannot be downloaded: {_first_line(error)}") from error
    raise _hub_error(encoder, repo, f"hold none of {', '.join(HUB_FILES)}")


def _reach_hub(encoder: str, repo: str) -> None:
    # The hub's client retries for half a minute where there is no network; one short question fails at once.
    if constants.HF_HUB_OFFLINE:
        raise _hub_error(encoder, repo, "are not in the local cache, and HF_HUB_OFFLINE is set")
    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except (HTTPError, OSError) as error:
        raise _hub_error(encoder, repo, f"cannot be reached: {_first_line(error)}") from error


def _hub_error(encoder: str, repo: str, why: str) -> EncoderError:
    return EncoderError(
        f"The weights of the encoder {encoder!r} at {repo} {why}.",
        fix=f"Ask for access at https://huggingface.co/{repo} and log in with `hf auth login` (or set HF_TOKEN); or "
        f"download {' or '.join(HUB_FILES)} from there on another machine and set encoder.weights to that file.",
        code="weights",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _commit(path: Path) -> str | None:
    """The commit a cached hub file belongs to: the cache keeps files under snapshots/<commit>/."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None
