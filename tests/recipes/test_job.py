"""What is refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.base.errors import SettingsError
from coverslip.base.study import load_study
from coverslip.recipes.job import check_names


@pytest.mark.parametrize("setting", ["tissue.masks", "heatmaps.annotations"])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, setting: str) -> None:
    (tmp_path / "study.toml").write_text('[cohort]\ntable = "cohort.csv"\n[task]\ncolumn = "y"\n')
    with pytest.raises(SettingsError, match=f"{setting}: there is no folder .*maks"):
        check_names(load_study(tmp_path / "study.toml", [f"{setting}=maks"]))
    (tmp_path / "maks").mkdir()
    check_names(load_study(tmp_path / "study.toml", [f"{setting}=maks"]))
