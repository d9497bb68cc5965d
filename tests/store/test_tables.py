"""Outcomes survive kills and several writers; predictions keep every digit and every name."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import TableError
from coverslip.store import OutcomeLog, read_outcomes, read_predictions, write_table


def test_the_last_outcome_of_a_slide_and_stage_counts(tmp_path) -> None:
    with OutcomeLog(tmp_path / "outcomes.csv") as log:
        log.record("a", "embed", "failed", "JPEG data ends early", 1.5)
        log.record("b", "embed", "done", seconds=2)
        log.record("a", "embed", "done", seconds=3)
        log.record("a", "heatmap", "reused")
    text = (tmp_path / "outcomes.csv").read_text()
    assert text.splitlines()[0] == "slide,stage,status,reason,seconds"
    assert len(text.splitlines()) == 4
    frame = read_outcomes(tmp_path / "outcomes.csv")
    assert frame[["slide", "stage", "status"]].values.tolist() == [
        ["a", "embed", "done"],
        ["b", "embed", "done"],
        ["a", "heatmap", "reused"],
    ]
    assert frame["seconds"].tolist()[:2] == [3, 2]
    assert np.isnan(frame["seconds"].iloc[2])


def test_outcomes_are_on_disk_before_the_log_is_closed(tmp_path) -> None:
    log = OutcomeLog(tmp_path / "outcomes.csv")
    log.record("a", "embed", "done")
    assert read_outcomes(tmp_path / "outcomes.csv")["slide"].tolist() == ["a"]


@pytest.mark.parametrize("torn", ["b,em", "b,embed,do", "b,embed,done,x", '"b'])
def test_a_line_cut_off_by_a_kill_harms_no_other(tmp_path, torn) -> None:
    path = tmp_path / "outcomes.csv"
    OutcomeLog(path).record("a", "embed", "done")
    with path.open("a") as file:
        file.write(torn)
    again = OutcomeLog(path)
    again.record("c", "embed", "failed", "no tissue")
    again.record("d", "embed", "done")
    assert again.read()["slide"].tolist() == ["a", "c", "d"]


def test_reasons_with_commas_quotes_and_line_breaks_stay_one_line(tmp_path) -> None:
    log = OutcomeLog(tmp_path / "outcomes.csv")
    log.record("Präparat, 1", "embed", "failed", 'bad "tile",\nthen another')
    assert log.read().iloc[0][["slide", "reason"]].tolist() == ["Präparat, 1", 'bad "tile", then another']


def _record(path: Path, name: str) -> None:
    log = OutcomeLog(path)
    for i in range(100):
        log.record(f"{name}{i}", "embed", "done", seconds=i)


def test_several_processes_append_to_one_log(tmp_path) -> None:
    path = tmp_path / "outcomes.csv"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_record, args=(path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_outcomes(path)) == 300


def test_another_table_is_not_taken_for_outcomes(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("slide,patient\na,b\n")
    with pytest.raises(TableError, match="has not the columns slide, stage"):
        read_outcomes(tmp_path / "t.csv")
    with pytest.raises(TableError, match="There is no"):
        read_outcomes(tmp_path / "none.csv")


def test_predictions_keep_names_and_digits(tmp_path) -> None:
    frame = pd.DataFrame(
        {
            "slide": ["001", "NA", "1e5"],
            "patient": ["007", "None", "p"],
            "fold": [0, 1, 1],
            "set": "test",
            "cancer": ["0", "NA", "1"],
            "p_0": [0.1 + 0.2, 1 / 3, np.nan],
            "p_NA": [1e-300, 2 / 3, 0.5],
        }
    )
    write_table(tmp_path / "predictions.csv", frame)
    found = read_predictions(tmp_path / "predictions.csv", text=("cancer",))
    for name in ("slide", "patient", "cancer"):
        assert found[name].tolist() == frame[name].tolist()
    np.testing.assert_array_equal(found[["p_0", "p_NA"]], frame[["p_0", "p_NA"]])
    assert found["fold"].tolist() == [0, 1, 1]


def test_a_table_that_is_none_of_predictions_is_named(tmp_path) -> None:
    (tmp_path / "p.csv").write_text("slide,fold\na,0\n")
    with pytest.raises(TableError, match="lacks the column patient, set"):
        read_predictions(tmp_path / "p.csv")
    (tmp_path / "q.csv").write_bytes(b"slide,patient,fold,set\n\xff\xfe,1,2,3\n")
    with pytest.raises(TableError, match="cannot be read"):
        read_predictions(tmp_path / "q.csv")
    (tmp_path / "r.csv").write_text("")
    with pytest.raises(TableError, match="lacks the column"):
        read_predictions(tmp_path / "r.csv")
