"""Floor 5: what could make a number too good. Leaks within folds and between cohorts, shortcuts, pretraining."""

from coverslip.audit.columns import looks_like_outcome
from coverslip.audit.contents import (
    Content,
    contents_json,
    not_compared,
    read_contents,
    shared_pictures,
    sketch_digest,
)
from coverslip.audit.leaks import AuditFinding, audit_cohorts, audit_split, content_digests, duplicate_pairs
from coverslip.audit.pretraining import cohort_patient, pretraining_overlap
from coverslip.audit.probe import Probe
from coverslip.audit.shortcuts import confounding, label_from_site, site_from_features, slide_collapse, within_sites
from coverslip.audit.site_numbers import explained_by_site, number_from_site
from coverslip.audit.site_times import risk_from_site, sites_part
from coverslip.audit.sites import ask_sites
from coverslip.audit.twins import Sketch, feature_twins, sketch

__all__ = [
    "AuditFinding",
    "Content",
    "Probe",
    "Sketch",
    "ask_sites",
    "audit_cohorts",
    "audit_split",
    "cohort_patient",
    "confounding",
    "content_digests",
    "contents_json",
    "duplicate_pairs",
    "explained_by_site",
    "feature_twins",
    "label_from_site",
    "looks_like_outcome",
    "not_compared",
    "number_from_site",
    "pretraining_overlap",
    "read_contents",
    "risk_from_site",
    "shared_pictures",
    "site_from_features",
    "sites_part",
    "sketch",
    "sketch_digest",
    "slide_collapse",
    "within_sites",
]
