"""A study as one self-contained page: ``report.html``."""

from studies.report_page.page import write_report_page

__all__ = ["write_report_page"]
