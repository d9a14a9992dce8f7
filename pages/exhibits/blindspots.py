"""The former names of `engine.reports.concepts`, until the pages have moved."""

from engine.reports import concepts
from pages.widgets import data


def ends(view, count):
    """See `concepts.ranking_ends`."""
    return concepts.ranking_ends(data.current(), view, count)


def ranked(view):
    """See `concepts.ranked_concepts`."""
    return concepts.ranked_concepts(data.current(), view)
