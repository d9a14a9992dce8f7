"""The former names of `engine.reports.images`, until the pages have moved."""

from engine.reports import images
from engine.reports.images import LEVEL
from engine.reports.images import ImagePair as Pair
from pages.widgets import data

__all__ = ["LEVEL", "Pair", "chosen_pair", "compared", "paired_models", "pairs_of", "two_models"]


def pairs_of(model):
    """See `images.ranked_pairs`."""
    return images.ranked_pairs(data.current(), model)


def paired_models():
    """See `images.paired_models`."""
    return images.paired_models(data.current())


def two_models(view):
    """See `images.compared_models`."""
    return images.compared_models(data.current(), view)


def compared(view):
    """See `images.model_comparison`."""
    return images.model_comparison(data.current(), view)


def chosen_pair(view):
    """See `images.image_pair`."""
    return images.image_pair(data.current(), view)
