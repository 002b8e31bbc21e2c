"""The report: one self-contained page with everything that happened to the records."""

from pipeline.publish.report.page import write_report as write_report
