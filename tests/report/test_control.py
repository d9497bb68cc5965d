from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from coverslip.base.files import read_json, write_json
from coverslip.eval.permute import control
from coverslip.eval.reduce import Units
from coverslip.eval.survival import risk_groups
from coverslip.report import write_report
from coverslip.report.contents import read_contents
from coverslip.report.sections import SECTIONS, Absent
from coverslip.report.sections.warnings import cautions
from coverslip.store import RunFolder


def test_a_control_shows_the_real_figure_among_those_of_other_outcomes(run_folder: Path, tmp_path: Path) -> None:
    page = write_report([run_folder], tmp_path / "report.html").read_text()
    assert "with outcomes of other patients it is 0.495" in page
    assert "= 0.048" in page, "1 of 21"
    assert not [c for c in cautions(read_contents(run_folder)) if "other patients" in c.headline]


def test_a_leak_that_the_control_found_stands_first(copy_of: Callable[..., Path], edit: Callable[..., None]) -> None:
    folder = copy_of()
    edit(RunFolder(folder).control, lambda told: told.update(above_chance=True))
    first = cautions(read_contents(folder))[0]
    assert first.gravity == "leak" and "Outcomes of other patients are found too" in first.headline


def test_without_a_control_the_report_says_that_nobody_asked(copy_of: Callable[..., Path]) -> None:
    found = SECTIONS.load("control").build(read_contents(copy_of(without=("control.json",))))
    assert isinstance(found, Absent) and "--control 20" in found.reason


def test_survival_by_risk_has_a_p_from_the_control_alone(
    copy_of: Callable[..., Path], edit: Callable[..., None], tmp_path: Path
) -> None:
    folder = copy_of()
    rng = np.random.default_rng(0)
    y = np.stack([rng.exponential(10, 40), rng.integers(0, 2, 40)], axis=1)
    ids = np.array([f"p{i}" for i in range(40)])
    risk = rng.normal(size=(40, 1))
    groups = risk_groups(Units(ids, ids, y, risk, over_cut=risk[:, 0] - 0.5), risk[:, 0])
    assert groups["groups"][1]["patients"] == (risk[:, 0] > 0.5).sum()
    path = RunFolder(folder).evaluation
    write_json(path, {**read_json(path), "risk_groups": groups})
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "Survival by risk" in page and "followed" in page
    assert "log-rank p" not in page
    z = control(2.5, [0.1 * i - 1 for i in range(20)]).to_json()
    edit(RunFolder(folder).control, lambda told: told.update(logrank=z))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "log-rank p 0.048 by permuting the whole cross-validation" in page
