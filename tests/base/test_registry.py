"""Registries: names are read without importing, unknown ones get the nearest match, other packages can add theirs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.registry import REGISTRIES, Registry, suggest


@pytest.mark.parametrize("kind", list(REGISTRIES))
def test_every_entry_says_what_it_is_and_its_licence(kind: str) -> None:
    entries = REGISTRIES[kind].entries
    assert entries, kind
    for entry in entries.values():
        assert entry.summary, entry
        assert entry.licence, entry


@pytest.mark.parametrize("kind", list(REGISTRIES))
def test_what_an_entry_builds_exists(kind: str) -> None:
    for name in REGISTRIES[kind].names():
        assert callable(REGISTRIES[kind].load(name))


def test_listing_names_imports_no_torch() -> None:
    code = (
        "import sys\nfrom coverslip.base.registry import REGISTRIES\n"
        "[r.names() for r in REGISTRIES.values()]\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_coverslip_and_the_command_line_imports_no_torch() -> None:
    code = (
        "import sys\nimport coverslip as cs, coverslip.cli.main, coverslip.recipes.check, coverslip.recipes.report\n"
        "cs.Slide, cs.segment, cs.plan, cs.Run, cs.TileSpec\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'abmil'"):
        REGISTRIES["aggregators"].entry("abmill")


def test_an_empty_folder_has_no_names() -> None:
    assert Registry("nothings", "coverslip.base").names() == []


def test_suggestions_name_what_is_accepted() -> None:
    assert suggest("zzz", ["a", "b"]) == "Accepted: a, b."


def test_every_public_name_resolves() -> None:
    import coverslip as cs

    for name in cs.__all__:
        assert getattr(cs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cs.nonsense  # noqa: B018


def test_of_a_thousand_names_the_nearest_and_a_few_are_told() -> None:
    said = suggest("case-017", [f"case-{i:04}" for i in range(1000)])
    assert said.startswith("Did you mean 'case-0")
    assert said.endswith("Accepted: case-0000, case-0001, case-0002, case-0003, case-0004 and 995 more.")
