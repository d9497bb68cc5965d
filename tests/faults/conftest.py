"""A cohort small enough to be run dozens of times, and what is left of it after a fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coverslip.synthetic import make_cohort
from small_study import STUDY


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four slides with table and study, in which nothing was run. To be copied only."""
    folder = tmp_path_factory.mktemp("slides")
    make_cohort(folder, slides=4, side_px=512, damaged=0)
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture
def fresh(slides: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the slides, table and study of `slides`."""
    return Path(shutil.copytree(slides, tmp_path / "fresh"))
