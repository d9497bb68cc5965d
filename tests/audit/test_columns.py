from __future__ import annotations

import pytest

from coverslip.audit import looks_like_outcome


@pytest.mark.parametrize(
    "name",
    ["OS", "OS.time", "os_days", "pfi", "PFI_MONTHS", "vital_status", "daysToDeath", "days_to_last_followup", "RFS",
     "time_to_relapse", "follow_up", "response"],
)  # fmt: skip
def test_outcomes_are_known_by_their_names(name: str) -> None:
    assert looks_like_outcome(name)


@pytest.mark.parametrize(
    "name",
    ["age", "sex", "stage", "ajcc_pathologic_stage", "grade", "er_status", "ETHNICITY", "scanner", "hospital", "dose",
     "tp53", "smoking_status", "position", "year_of_diagnosis"],
)  # fmt: skip
def test_covariates_are_not_taken_for_outcomes(name: str) -> None:
    assert not looks_like_outcome(name)
