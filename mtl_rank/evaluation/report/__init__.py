"""A run as one page, and several runs beside each other."""

from mtl_rank.evaluation.report.comparison import write_comparison
from mtl_rank.evaluation.report.page import write_report

__all__ = ["write_comparison", "write_report"]
