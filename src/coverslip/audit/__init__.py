"""Floor 5: what could make a number too good. Leaks between the sets of a fold and between cohorts."""

from coverslip.audit.leaks import AuditFinding, audit_cohorts, audit_split, content_digests, duplicate_pairs

__all__ = ["AuditFinding", "audit_cohorts", "audit_split", "content_digests", "duplicate_pairs"]
