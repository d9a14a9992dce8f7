"""An atlas's figures and tables by name: one registry for the pages, for `precompute export` and for notebooks.

>>> from engine.atlas import Atlas
>>> from engine.reports import report, report_names
>>> atlas = Atlas.open("data/demo/atlas")
>>> report_names(atlas)
['map', 'maps', 'delta-scatter', 'delta-densities', ...]
>>> report(atlas, "delta-ranking", model="woody").figure.show()
>>> report(atlas, "delta-ranking", model="woody", estimator="share").table

`concepts`, `selection`, `images`, `composition`, `dictionary`, `theory`, `level_sets` and `samplers` define the
reports, `files` writes them.
"""

from engine.reports import composition, concepts, dictionary, images, level_sets, samplers, selection, theory
from engine.reports.base import REPORTS, Report, ReportView, report, report_names

__all__ = [
    "REPORTS", "Report", "ReportView", "composition", "concepts", "dictionary", "images", "level_sets", "report",
    "report_names", "samplers", "selection", "theory",
]  # fmt: skip
