"""What a run ran on: versions, hardware, seeds and digests, for environment.json. Nothing that names a person."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from coverslip._version import __version__

FORMAT = "coverslip.environment/1"

# The packages whose version can change a number.
PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-image", "scikit-learn", "shapely",
    "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "pillow", "wsidicom",
    "torch", "lightning-fabric", "timm", "transformers", "safetensors", "h5py",
)  # fmt: skip

# Keys of environment.json that `--pseudonymise` replaces in a report.
PSEUDONYMISE = ("host", "created")


def describe_environment(
    *,
    now: datetime,
    seeds: Mapping[str, int] | None = None,
    digests: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
) -> dict[str, Any]:
    """What environment.json holds. `digests` are of inputs and weights by name, never by path; `devices` are the names
    of accelerators, from a floor that knows them."""
    assert not any("/" in name for name in digests or {}), "digests are named, paths may hold a person's name"
    return {
        "format": FORMAT,
        "created": now.astimezone(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "coverslip": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "hardware": {
            "cpu": _cpu_name(),
            "cores": _usable_cores(),
            "memory_gb": _memory_gb(),
            "devices": list(devices),
        },
        "packages": {name: version for name in PACKAGES if (version := _version_of(name)) is not None},
        "seeds": dict(seeds or {}),
        "digests": dict(digests or {}),
        "pseudonymise": list(PSEUDONYMISE),
    }


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    # A container or a job may have fewer than the machine.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
