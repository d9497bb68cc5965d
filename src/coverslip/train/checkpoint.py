"""Everything a training run needs to go on as if nothing had happened, in one safetensors file.

Tensors (objective, weights kept so far, optimiser) are named tensors; counters and the optimiser's plain numbers are
JSON in the file's header. No pickle. One file, renamed when it is whole, so its parts are never of different steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor

from coverslip.base.errors import StoreError
from coverslip.base.files import write_bytes
from coverslip.train.selection import Selection

FORMAT = "coverslip.checkpoint/1"


@dataclass
class Counters:
    """Where a run is: the next batch is batch `batch` of epoch `epoch`; `step` optimiser steps are done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Training losses of this epoch's batches."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row a finished epoch."""


def save(
    path: Path,
    *,
    key: str,
    counters: Counters,
    objective: Mapping[str, Tensor],
    kept: Mapping[str, Tensor] | None,
    selection: Selection,
    optimiser: Mapping[str, Any],
) -> None:
    """Writes a checkpoint atomically. `key` says what run it is of; `load` refuses another's.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    tensors = {f"objective/{name}": value for name, value in objective.items()}
    tensors |= {f"kept/{name}": value for name, value in (kept or {}).items()}
    if selection.losses is not None:
        tensors["selection/losses"] = selection.losses
    plain_state: dict[str, dict[str, Any]] = {}
    for index, state in optimiser["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{name}"] = value
            else:
                plain_state.setdefault(str(index), {})[name] = value
    header = {
        "format": FORMAT,
        "key": key,
        "counters": asdict(counters),
        "selection": {"best": selection.best, "kept": selection.kept},
        "param_groups": optimiser["param_groups"],
        "plain_state": plain_state,
    }
    # Copies, because safetensors refuses tensors that share memory.
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    # As bytes: where the disk is full, our own write says so, and the library's would not.
    write_bytes(path, serialise(whole, metadata={"coverslip": json.dumps(header)}))


@dataclass(frozen=True)
class Checkpoint:
    """What `save` wrote; `optimiser` is a state dict as torch wants it."""

    counters: Counters
    objective: dict[str, Tensor]
    kept: dict[str, Tensor] | None
    selection: Selection
    optimiser: dict[str, Any]


def load(path: Path, *, key: str) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none or it is of another run (other settings or data).

    Raises:
        StoreError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["coverslip"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"The checkpoint {path} is damaged: {error}.", fix="Remove it; that part of the training starts afresh."
        ) from error
    if header["format"] != FORMAT or header["key"] != key:
        return None
    state: dict[int, dict[str, Any]] = {int(index): dict(plain) for index, plain in header["plain_state"].items()}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimiser":
            index, _, entry = rest.partition("/")
            state.setdefault(int(index), {})[entry] = value
    return Checkpoint(
        Counters(**header["counters"]),
        _below("objective", tensors),
        _below("kept", tensors) or None,
        Selection(**header["selection"], losses=tensors.get("selection/losses")),
        {"state": state, "param_groups": [_tuples(group) for group in header["param_groups"]]},
    )


def _below(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(kind) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON turns tuples into lists; optimisers keep betas as a tuple."""
    return {key: tuple(v) if isinstance(v, list) and key != "params" else v for key, v in group.items()}


def clone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict that later training does not touch."""
    return {name: torch.clone(value.detach()) for name, value in state.items()}
