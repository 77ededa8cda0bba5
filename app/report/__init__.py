"""``report.html``: one self-contained page about a run, or about several laid over each other."""

from app.report.build import write_report

__all__ = ["write_report"]
