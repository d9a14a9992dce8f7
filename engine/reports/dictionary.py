"""How good an atlas's dictionary is: histograms of its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures import dictionary as figures
from engine.reports.base import Report, ReportView, figure_report, register


def _register(name: str, column: str, draw: Callable[[dict[str, Any], np.ndarray], go.Figure]) -> None:
    """Register a histogram of one column of the dictionary's report."""

    def possible(atlas: Atlas) -> bool:
        report = atlas.dictionary_report()
        return report is not None and (column != "stability" or bool(report.summary["stability"]))

    @register(name, possible=possible)
    def make(atlas: Atlas, view: ReportView) -> Report:
        found = atlas.dictionary_report()
        if found is None or not possible(atlas):
            raise BlindspotError(f"The atlas {atlas.path} does not hold the {column} of its dictionary.")
        summary, concepts = found
        figure = draw(summary, concepts[column].to_numpy())
        if name == "dictionary-l0":
            table = pd.DataFrame({"active_concepts": range(len(summary["l0_counts"])), "tokens": summary["l0_counts"]})
        else:
            table = concepts[[column]].reset_index()
        return figure_report(figure, table)


_register(
    "dictionary-frequency", "frequency",
    lambda summary, values: figures.frequency_histogram(values, tokens=summary["tokens"]),
)  # fmt: skip
_register("dictionary-l0", "frequency", lambda summary, values: figures.l0_histogram(summary["l0_counts"]))
_register("dictionary-coherence", "coherence", lambda summary, values: figures.coherence_histogram(values))
_register(
    "dictionary-hull", "hull_distance",
    lambda summary, values: figures.hull_histogram(
        values, points=summary["hull"]["points"], own=summary["hull"]["own_points"]
    ),
)  # fmt: skip
_register(
    "dictionary-stability", "stability",
    lambda summary, values: figures.stability_histogram(values, seeds=len(summary["stability"]["pairs"])),
)  # fmt: skip
