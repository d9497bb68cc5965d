"""Small tables on disk, and cohorts made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from coverslip.base.study import CohortSettings
from coverslip.cohort import Cohort, load_cohort

Load = Callable[..., Cohort]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes text to cohort.csv (and clinical.csv), and loads the cohort with the settings given."""

    def load(
        table: str | Sequence[Mapping[str, Any]],
        *,
        clinical: str | None = None,
        need_paths: bool = False,
        encoding: str = "utf-8",
        **settings: Any,
    ) -> Cohort:
        path = tmp_path / "cohort.csv"
        path.write_text(table if isinstance(table, str) else as_csv(table), encoding=encoding)
        if clinical is not None:
            (tmp_path / "clinical.csv").write_text(clinical, encoding="utf-8")
            settings["clinical"] = str(tmp_path / "clinical.csv")
        settings.setdefault("root", str(tmp_path))
        return load_cohort(CohortSettings(table=str(path), **settings), need_paths=need_paths)

    return load


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    return "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n"
