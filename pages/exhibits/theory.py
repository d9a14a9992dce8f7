"""The former names of `engine.reports.theory`, until the pages have moved."""

from engine.reports.theory import COMMAND, sample_count

__all__ = ["COMMAND", "sample_count"]
