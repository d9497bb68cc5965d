"""What every test may use: the folder of real slides and features, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder named by COVERSLIP_TEST_DATA; skips where it is absent."""
    folder = os.environ.get("COVERSLIP_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("COVERSLIP_TEST_DATA names no folder of real slides and features")
    return Path(folder)
