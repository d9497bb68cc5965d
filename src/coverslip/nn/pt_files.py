"""Feature rows from `.pt` files of other tools: a tensor (n, d) or (1, n, d), or a mapping that holds one.

Files are read with `weights_only=True`: nothing in them is executed, and a file that wants to is refused. For stores:

    FeatureStore(folder, readers={".pt": read_pt})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import (
    UnpicklingError,  # what torch raises for a file that holds more than tensors; nothing is unpickled here
)

import torch
from numpy import ndarray

from coverslip.base.errors import FeatureError

_ROWS = ("features", "feats", "embeddings")
_COORDS = ("coords", "coordinates")


def read_pt(path: Path) -> dict[str, ndarray | None]:
    """`features` (n, d) or (1, n, d) and `coords` (n, 2) or None, as NumPy arrays; bfloat16 becomes float32.

    Raises:
        FeatureError: damaged, holds more than tensors, or has no features.
    """
    path = Path(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FeatureError(
            f"{path.name} is damaged or holds Python objects other than tensors, which are never loaded.",
            slide=path.stem,
            fix="Save the bare tensor from the tool that made it: torch.save(features, path).",
            code="unsafe",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise FeatureError(
            f"{path.name} cannot be read as a torch file: {str(error).splitlines()[0] if str(error) else 'empty'}.",
            slide=path.stem,
            code="damaged",
        ) from error
    rows, coords = found, None
    if isinstance(found, Mapping):
        rows = next((found[name] for name in _ROWS if name in found), None)
        coords = next((found[name] for name in _COORDS if name in found), None)
    if not isinstance(rows, torch.Tensor):
        held = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise FeatureError(
            f"{path.name} holds {held or 'nothing'}; accepted: a tensor, or one under {', '.join(_ROWS)}.",
            slide=path.stem,
            code="layout",
        )
    return {"features": _numpy(rows), "coords": _numpy(coords) if isinstance(coords, torch.Tensor) else None}


def _numpy(tensor: torch.Tensor) -> ndarray:
    tensor = tensor.detach()
    array: ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
