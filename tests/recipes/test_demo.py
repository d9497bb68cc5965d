from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.recipes.demo import demo


@pytest.mark.slow
def test_the_demo_ends_well_on_small_slides(tmp_path: Path) -> None:
    result = demo(tmp_path, slides=12, side_px=1024)
    assert set(result.failed) == set(result.damaged) == {"case-13"}
    assert result.report is not None and result.report.is_file()
    assert result.metrics["primary"]["auroc"]["value"] is not None
    assert result.metrics["localisation"] is not None
    # What it leaves is a study that runs again.
    assert (tmp_path / "study.toml").is_file()
