"""The former names of `engine.reports.concepts`, until the pages have moved."""

from engine.reports.concepts import group_members as members

__all__ = ["members"]
