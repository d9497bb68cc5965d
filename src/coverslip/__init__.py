"""Whole-slide pathology images to a validated slide-level model, and the evidence for it.

The public names below are loaded when they are first used, so that `import coverslip` and `coverslip check` cost no
torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from coverslip._version import __version__

# Public name -> the module that defines it.
_PUBLIC = {
    "Box": "coverslip.base.geometry",
    "Size": "coverslip.base.geometry",
    "TileSpec": "coverslip.base.geometry",
    "Tiles": "coverslip.base.geometry",
    "CoverslipError": "coverslip.base.errors",
    "SlideError": "coverslip.base.errors",
    "Study": "coverslip.base.study",
    "load_study": "coverslip.base.study",
    "Slide": "coverslip.slide",
    "TissueMask": "coverslip.tissue",
    "segment": "coverslip.tissue",
    "plan": "coverslip.tiles",
    "raster": "coverslip.tiles",
    "Features": "coverslip.store",
    "FeatureStore": "coverslip.store",
    "Run": "coverslip.store",
    "read_features": "coverslip.store",
    "Encoder": "coverslip.encoders",
    "EncoderInfo": "coverslip.encoders",
    "encoder": "coverslip.encoders",
    "embed": "coverslip.encoders",
    "Bags": "coverslip.mil",
    "Aggregator": "coverslip.mil",
    "predict": "coverslip.recipes.predict",
    "explain": "coverslip.recipes.heatmap",
    "run": "coverslip.recipes.run",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'coverslip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
