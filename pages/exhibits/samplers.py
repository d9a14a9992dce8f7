"""The former names of `engine.reports.samplers`, until the pages have moved."""

from engine.errors import BlindspotError
from engine.figures.style import concept_names
from engine.reports.samplers import BASES, FOLDER, JUDGES, Comparison, Tile, judged_columns, measured, tiles
from pages.reports import SAMPLER_IMAGES as ADDRESS
from pages.reports import sampler_image as address
from pages.widgets import data

__all__ = [
    "ADDRESS", "BASES", "FOLDER", "JUDGES", "Comparison", "Tile", "address", "judged_columns", "measured", "names",
    "tiles",
]  # fmt: skip


def names():
    """Return label and number of every compared concept; the number alone where the demo atlas is not at hand."""
    concepts = measured().concepts
    try:
        labels = data.open_atlas(data.DEFAULT).concepts["label"].reindex(concepts)
    except BlindspotError:
        labels = [None] * len(concepts)
    return dict(zip(concepts, concept_names(labels, concepts), strict=True))
