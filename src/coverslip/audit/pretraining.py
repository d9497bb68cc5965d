"""Whether the encoder may have seen the test slides when it was made. Then the test is no test of the encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from coverslip.cohort.table import some

# A TCGA barcode names its patient in its first three parts: project, tissue source site, participant.
_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])", re.IGNORECASE)
_CPTAC = re.compile(r"C3[LN]-\d{5}", re.IGNORECASE)
_GTEX = re.compile(r"GTEX-[A-Z0-9]{4,5}(?![A-Z0-9])", re.IGNORECASE)
_COHORTS = {"TCGA": _TCGA, "CPTAC": _CPTAC, "GTEx": _GTEX}


def cohort_patient(name: str) -> tuple[str, str] | None:
    """The public cohort and the patient that a slide's or patient's name tells: ("TCGA", "TCGA-CR-7395"); else None."""
    for cohort, pattern in _COHORTS.items():
        match = pattern.search(name)
        if match:
            return cohort, match.group(0).upper()
    return None


def pretraining_overlap(
    patient_of: Mapping[str, str], seen: Sequence[str] | None, listed: Sequence[str] = ()
) -> dict[str, Any]:
    """How many tested slides the encoder may have learnt from, as plain values for JSON.

    `patient_of` is the patient of each tested slide; `seen` the public cohorts of `EncoderInfo.pretraining`, None where
    they are not known; `listed` are patients, slides or barcodes that are known to have been seen. A slide counts where
    its name or its patient's is of a seen cohort, or on the list (of a barcode its patient's part is enough).
    """
    wanted = {text.strip().upper() for text in listed if text.strip()}
    wanted |= {found[1] for text in wanted if (found := cohort_patient(text)) is not None}
    by_cohort: dict[str, int] = {}
    on_list: list[str] = []
    for slide, patient in sorted(patient_of.items()):
        origin = cohort_patient(slide) or cohort_patient(patient)
        if origin is not None and origin[0] in (seen or ()):
            by_cohort[origin[0]] = by_cohort.get(origin[0], 0) + 1
        names = {slide.upper(), patient.upper()} | ({origin[1]} if origin is not None else set())
        if names & wanted:
            on_list.append(slide)
    total = len(patient_of)
    warnings, unsure = [], []
    if seen is None:
        named = [
            (cohort_patient(slide) or cohort_patient(patient) or ("", ""))[0] for slide, patient in patient_of.items()
        ]
        unsure = [
            f"It is not known whether the encoder has learnt from {cohort}, and {named.count(cohort)} of {total} "
            "tested slides are of it: if it has, the figures may be too good."
            for cohort in _COHORTS
            if cohort in named
        ]
    for cohort, count in by_cohort.items():
        warnings.append(
            f"The encoder has learnt from {cohort}, and {count} of {total} tested slides are of it: they may have been "
            "seen in pretraining, and the figures may be too good."
        )
    if on_list:
        warnings.append(f"{len(on_list)} of {total} tested slides are on the pretraining list: {some(on_list)}.")
    return {
        "seen": None if seen is None else list(seen),
        "tested": total,
        "by_cohort": by_cohort,
        "on_list": on_list,
        "listed": len(wanted),
        "warnings": warnings,
        "unsure": unsure,
    }
