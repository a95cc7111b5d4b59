"""Reports from the files of runs alone."""

from settlepoint.report.load import ReportError, RunFiles, read
from settlepoint.report.page import write

__all__ = ["ReportError", "RunFiles", "read", "write"]
