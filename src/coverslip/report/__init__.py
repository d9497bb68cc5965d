"""Floor 9: run folders as one self-contained HTML file. No torch."""

from coverslip.report.compared import write_comparison
from coverslip.report.report import write_report

__all__ = ["write_comparison", "write_report"]
