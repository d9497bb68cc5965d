"""Floor 3: what is wrong with slides, before any work is done on them."""

from coverslip.preflight.check import check_slide
from coverslip.preflight.cohort import check_cohort
from coverslip.preflight.report import CheckReport, SlideReport, Twins

__all__ = ["CheckReport", "SlideReport", "Twins", "check_cohort", "check_slide"]
