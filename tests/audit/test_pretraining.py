from __future__ import annotations

import pytest

from coverslip.audit import cohort_patient, pretraining_overlap


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("TCGA-CR-7395-01A-01-TS1", ("TCGA", "TCGA-CR-7395")),
        ("tcga-cr-7395-01z-00-dx1.4f", ("TCGA", "TCGA-CR-7395")),
        ("C3L-00601-26", ("CPTAC", "C3L-00601")),
        ("GTEX-111CU-1826", ("GTEx", "GTEX-111CU")),
        ("TCGA-CR-73951", None),
        ("case-7395", None),
    ],
)
def test_public_barcodes_name_their_patient(name: str, found: tuple[str, str] | None) -> None:
    assert cohort_patient(name) == found


def test_slides_of_a_cohort_that_the_encoder_has_seen_are_counted() -> None:
    patient_of = {"TCGA-CR-7395-01A": "TCGA-CR-7395", "b": "b", "C3L-00601-26": "c"}
    found = pretraining_overlap(patient_of, ("TCGA",))
    assert found["by_cohort"] == {"TCGA": 1}
    assert found["warnings"][0].startswith("The encoder has learnt from TCGA, and 1 of 3 tested slides are of it")
    assert pretraining_overlap(patient_of, ())["warnings"] == []
    assert pretraining_overlap(patient_of, None)["seen"] is None


def test_a_list_is_matched_by_patient_slide_or_the_patients_part_of_a_barcode() -> None:
    patient_of = {"TCGA-CR-7395-01A": "x", "b-slide": "b", "c": "c-patient", "d": "d"}
    found = pretraining_overlap(patient_of, None, ["tcga-cr-7395-11z-00-dx2", "B-slide", "c-patient", ""])
    assert found["on_list"] == ["TCGA-CR-7395-01A", "b-slide", "c"]
    assert "3 of 4 tested slides are on the pretraining list" in found["warnings"][0]
