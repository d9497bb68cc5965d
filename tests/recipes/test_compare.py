"""Methods on the same folds: what is trained stays, what fails is told, and figures are those of the runs alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.base.errors import CoverslipError
from coverslip.base.study import load_study
from coverslip.mil.methods.abmil import Abmil
from coverslip.recipes import cells as cells_module
from coverslip.recipes.compare import compare_study
from coverslip.recipes.train import train_study
from coverslip.store import Run
from feature_study import write_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path, 16)


def told(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study.parent / "run" / "compare" / "compare.json").read_text())
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that are trained, as they are."""
    seen: list[str] = []
    call = cells_module.CellTraining.__call__

    def spy(self: Any, cell: Any) -> str:
        seen.append(cell.name)
        return call(self, cell)

    monkeypatch.setattr(cells_module.CellTraining, "__call__", spy)
    return seen


def test_a_comparison_goes_on_and_a_method_added_later_is_trained_alone(study: Path, trained: list[str]) -> None:
    compare_study(load_study(study), aggregators="mean,max")
    first = told(study)
    assert trained == ["mean, fold0", "max, fold0", "mean, fold1", "max, fold1"]
    trained.clear()
    compare_study(load_study(study), aggregators="mean,max")
    assert trained == []
    second = told(study)
    assert {**first, "hours": 0} == {**second, "hours": 0}
    compare_study(load_study(study), aggregators="mean,max,abmil", reference="mean")
    assert trained == ["abmil, fold0", "abmil, fold1"]
    trained.clear()
    (study.parent / "run/compare/runs/max/models/fold1/cell.json").unlink()
    compare_study(load_study(study), aggregators="mean,max,abmil", reference="mean")
    assert trained == ["max, fold1"]
    compare_study(load_study(study, ["fit.seed=1"]), aggregators="mean,max")
    assert len(trained) == 5


def test_figures_are_those_of_each_method_trained_alone(study: Path) -> None:
    found = compare_study(load_study(study), aggregators="mean,abmil:heads=2").metrics
    alone = train_study(
        load_study(study, ["output=alone", "aggregator.name=abmil", "aggregator.options.heads=2"])
    ).metrics
    mine = next(one for one in found["methods"] if one["name"] == "abmil:heads=2")
    assert mine["folds"] == [fold["auroc"] for fold in alone["folds"]]
    assert mine["value"] == alone["primary"]["auroc"]
    assert found["linear"]["value"] == alone["baseline"]["auroc"]
    gap = next(one for one in found["baseline"]["methods"] if one["method"] == "abmil:heads=2")
    assert gap["difference"]["value"] == pytest.approx(alone["versus_baseline"]["auroc"]["value"])


def test_every_method_has_a_run_of_its_own_that_train_finishes_with_its_models(
    study: Path, coverslip: Callable[..., Any]
) -> None:
    compare_study(load_study(study), aggregators="mean,abmil")
    folder = study.parent / "run/compare/runs/abmil"
    run = Run.open(folder)
    assert run.settings.aggregator.name == "abmil" and len(run.models()) == 2
    before = [(path / "weights.safetensors").stat().st_mtime_ns for path in run.models()]
    assert coverslip("train", folder / "settings.toml", "--set", "evaluation.inner_folds=2").code == 0
    assert [(path / "weights.safetensors").stat().st_mtime_ns for path in run.models()] == before
    assert json.loads((folder / "metrics.json").read_text())["inner"]["folds"] == 2


def test_comparing_with_the_settings_it_wrote_goes_on_in_the_same_folder(study: Path, trained: list[str]) -> None:
    compare_study(load_study(study), aggregators="mean,abmil:heads=2", reference="mean")
    first = told(study)
    trained.clear()
    tally = compare_study(load_study(study.parent / "run/compare/settings.toml"))
    assert tally.folder == study.parent / "run/compare"
    assert trained == []
    assert told(study)["methods"] == first["methods"] and told(study)["reference"] == first["reference"]


def test_entries_of_the_study_have_options_fit_and_grid_of_their_own(study: Path) -> None:
    study.write_text(
        study.read_text()
        + '[compare]\nreference = "slow"\n[compare.methods.slow]\nname = "abmil"\nfit = { lr = 1e-5 }\n'
        '[compare.methods.mean]\n[compare.methods.chosen]\nname = "mean"\ngrid = { "fit.lr" = [1e-3, 1e-2] }\n'
    )
    found = compare_study(load_study(study, ["tune.folds=2"])).metrics
    by_name = {one["name"]: one for one in found["methods"]}
    assert found["reference"]["reference"]["method"] == "slow"
    assert by_name["slow"]["fit"] == {"lr": 1e-5} and by_name["slow"]["used"]["lr"] == [1e-5]
    assert by_name["chosen"]["grid"] == {"fit.lr": [1e-3, 1e-2]}
    assert set(by_name["chosen"]["used"]["lr"]) <= {1e-3, 1e-2}
    assert (study.parent / "run/compare/runs/chosen/tuning.json").is_file()


def test_the_studys_own_method_keeps_the_studys_options(study: Path) -> None:
    loaded = load_study(study, ["aggregator.name=abmil", "aggregator.options.heads=2"])
    found = compare_study(loaded, aggregators="mean,abmil").metrics
    assert [one["options"] for one in found["methods"]] == [{}, {"heads": 2}]


@pytest.mark.parametrize("error", [CoverslipError("The loss became nan."), RuntimeError("out of memory")])
def test_a_fold_that_fails_is_told_and_the_others_go_on(
    error: Exception, study: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str], coverslip: Callable[..., Any]
) -> None:
    train = cells_module.FoldTraining.__call__

    def fails(self: Any, fold: Any) -> str:
        if self.study.aggregator.name == "max" and fold.index == 1:
            raise error
        return train(self, fold)

    with monkeypatch.context() as patch:
        patch.setattr(cells_module.FoldTraining, "__call__", fails)
        said = coverslip("compare", study, "--aggregators", "mean,max,abmil")
    assert said.code == 1
    assert "max, fold1" in said.err and str(error) in said.err
    found = told(study)
    by_name = {one["name"]: one for one in found["methods"]}
    assert list(by_name["max"]["failed"]) == ["fold1"]
    assert by_name["max"]["folds"][1] is None and by_name["max"]["folds"][0] is not None
    assert all(None not in by_name[name]["folds"] for name in ("mean", "abmil"))
    assert any("max has no figure of fold1" in warning for warning in found["warnings"])
    assert not (study.parent / "run/compare/runs/max/metrics.json").exists()
    trained.clear()
    assert coverslip("compare", study, "--aggregators", "mean,max,abmil").code == 0
    assert trained == ["max, fold1"]


def test_a_method_that_fails_everywhere_has_no_figure_and_ends_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, bags: Any, target: Any = None) -> Any:
        raise RuntimeError("shapes")

    monkeypatch.setattr(Abmil, "forward", broken)
    found = compare_study(load_study(study), aggregators="mean,max,abmil", reference="mean").metrics
    lost = found["methods"][2]
    assert lost["value"]["value"] is None and lost["rank"] is None and lost["cost"]["parameters"] is None
    assert found["choice"]["method"] in ("mean", "max")
    assert any("abmil failed on every fold" in warning for warning in found["warnings"])


def test_a_method_that_needs_positions_is_left_out_with_the_reason(
    study: Path, monkeypatch: pytest.MonkeyPatch, coverslip: Callable[..., Any]
) -> None:
    monkeypatch.setattr(Abmil, "uses_positions", True)
    said = coverslip("compare", study, "--aggregators", "mean,max,abmil", "--reference", "mean")
    assert said.code == 1
    assert "abmil" in said.err and "positions" in said.err
    found = told(study)
    assert [one["name"] for one in found["methods"]] == ["mean", "max"] and "positions" in found["left_out"]["abmil"]
    refused = coverslip("compare", study, "--aggregators", "mean,max,abmil")
    assert refused.code == 2 and "--reference" in refused.err
    refused = coverslip("compare", study, "--aggregators", "mean,abmil", "--reference", "mean")
    assert refused.code == 2 and "Only 'mean'" in refused.err


def test_no_test_patient_is_read_before_every_model_is_made(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    train, predict = cells_module.CellTraining.__call__, cells_module.CellTest.__call__
    monkeypatch.setattr(cells_module.CellTraining, "__call__", lambda s, c: (begun.append("train"), train(s, c))[1])
    monkeypatch.setattr(cells_module.CellTest, "__call__", lambda s, c: (begun.append("test"), predict(s, c))[1])
    compare_study(load_study(study), aggregators="mean,max")
    assert begun == ["train"] * 4 + ["test"] * 4


def test_a_family_or_reference_changed_after_the_figures_were_seen_is_told(study: Path) -> None:
    compare_study(load_study(study), aggregators="mean,max,abmil")
    assert told(study)["declared"] == ["abmil"]
    found = compare_study(load_study(study), aggregators="mean,max", reference="max").metrics
    assert any("left out now: abmil" in warning for warning in found["warnings"])
    assert any("earlier comparison on these folds was abmil" in warning for warning in found["warnings"])
    # Other folds, another comparison.
    found = compare_study(load_study(study, ["split.seed=5"]), aggregators="mean,max", reference="max").metrics
    assert not any("these folds" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("task", "metric"),
    [('kind = "regression"\ncolumn = "size"', "r2"), ('kind = "survival"\ntime = "days"\nevent = "died"', "c_index")],
)
def test_other_kinds_of_task_go_by_their_own_figure(task: str, metric: str, tmp_path: Path) -> None:
    path = write_study(
        tmp_path, 24, size=[1.0, 3.5, 1.5, 4.0, 2.0, 3.0], days=[90, 20, 80, 30, 70, 25], died=[1, 1, 0, 1, 1, 1]
    )
    path.write_text(path.read_text().replace('column = "lesion"', task))
    found = compare_study(load_study(path), aggregators="mean,max,abmil").metrics
    assert found["metric"] == found["reference"]["metric"] == metric
    assert all(len(one["folds"]) == 2 for one in found["methods"])
    assert (tmp_path / "run/compare/report.html").is_file()


def test_cost_is_measured_and_the_csv_has_a_row_a_method(study: Path) -> None:
    found = compare_study(load_study(study), aggregators="mean,abmil").metrics
    mean, abmil = (one["cost"] for one in found["methods"])
    assert 0 < mean["parameters"] < abmil["parameters"]
    assert all(cost["train_seconds"] > 0 and cost["seconds_per_1000_tiles"] > 0 for cost in (mean, abmil))
    table = pd.read_csv(study.parent / "run/compare/compare.csv")
    assert list(table["name"]) == ["mean", "abmil", found["linear"]["name"]]
    assert table["value"].tolist() == pytest.approx(
        [one["value"]["value"] for one in (*found["methods"], found["linear"])]
    )


def test_what_was_begun_before_has_no_cost_of_its_own(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_study(load_study(study), aggregators="mean,abmil")
    record = study.parent / "run/compare/runs/mean/models/fold0/cell.json"
    record.unlink()
    found = compare_study(load_study(study), aggregators="mean,abmil").metrics
    assert json.loads(record.read_text())["seconds"] is None
    assert found["methods"][0]["cost"]["folds_measured"] == 1
