"""The former names of `pages.reports` and `engine.reports`, until the pages have moved."""

from engine.reports import REPORTS as MAKERS
from engine.reports import Report as Exhibit
from pages.reports import FoundReport as Named
from pages.reports import _report as _made
from pages.reports import find_report as named

__all__ = ["MAKERS", "Exhibit", "Named", "_made", "named"]
