"""What `coverslip status` counts."""

from __future__ import annotations

from pathlib import Path

from coverslip.base.study import load_study
from coverslip.recipes.status import status


def test_a_study_of_feature_files_has_no_slide_left_to_check(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("slide,patient,y\na,p1,0\nb,p2,1\n")
    (tmp_path / "study.toml").write_text('[cohort]\ntable = "cohort.csv"\n[task]\ncolumn = "y"\n')
    stages = status(load_study(tmp_path / "study.toml"))
    assert stages["check"]["missing"] == 0
    assert stages["embed"]["missing"] == 2
