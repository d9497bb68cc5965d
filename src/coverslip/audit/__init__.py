"""Floor 5: what could make a number too good. Leaks within folds and between cohorts, shortcuts, pretraining."""

from coverslip.audit.leaks import AuditFinding, audit_cohorts, audit_split, content_digests, duplicate_pairs
from coverslip.audit.pretraining import cohort_patient, pretraining_overlap
from coverslip.audit.shortcuts import (
    Probe,
    confounding,
    label_from_site,
    site_from_features,
    slide_collapse,
    within_sites,
)
from coverslip.audit.twins import Sketch, feature_twins, sketch

__all__ = [
    "AuditFinding",
    "Probe",
    "Sketch",
    "audit_cohorts",
    "audit_split",
    "cohort_patient",
    "confounding",
    "content_digests",
    "duplicate_pairs",
    "feature_twins",
    "label_from_site",
    "pretraining_overlap",
    "site_from_features",
    "sketch",
    "slide_collapse",
    "within_sites",
]
