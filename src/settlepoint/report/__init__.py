"""Reports from the files of runs alone."""

from settlepoint.report.load import ReportError, ReportWriteError, RunFiles, read
from settlepoint.report.page import write
from settlepoint.report.terminal import show

__all__ = ["ReportError", "ReportWriteError", "RunFiles", "read", "show", "write"]
