"""The former names of `engine.reports.composition`, until the pages have moved."""

from engine.reports import composition
from engine.reports.composition import significance_sentence as verdict
from pages.widgets import data

__all__ = ["changed_pairs", "verdict"]


def changed_pairs(model):
    """See `composition.changed_pairs`."""
    return composition.changed_pairs(data.current(), model)
