"""The licence check: permissive passes, strong copyleft and non-commercial terms do not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_FILE = Path(__file__).resolve().parents[2] / "tools" / "check_licences.py"
_SPEC = importlib.util.spec_from_file_location("check_licences", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


@pytest.mark.parametrize(
    "text",
    [
        "MIT",
        "BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception",
        "Apache Software License",
        "GNU Lesser General Public License v2 (LGPLv2)",
        "LGPL-2.1-only",
        "MPL-2.0",
        "GPL-2.0-only OR BSD-3-Clause",
        "NVIDIA Proprietary Software",
        "Python Software Foundation License",
    ],
)
def test_permissive_licences_pass(text: str) -> None:
    assert tool.accepted(text)


@pytest.mark.parametrize(
    "text",
    [
        "GPL-3.0-only",
        "GNU General Public License v3 (GPLv3)",
        "AGPL-3.0",
        "",
        "Commercial",
        "BSD for non-commercial use",
        "MIT AND GPL-3.0-only",
    ],
)
def test_others_do_not(text: str) -> None:
    assert not tool.accepted(text)


def test_what_coverslip_needs_is_found_and_its_tools_are_not() -> None:
    found = tool.runtime_dependencies("coverslip")
    assert {"numpy", "torch", "openslide-python"} <= set(found)
    assert "pytest" not in found
