"""What an exhibit is, and what makers of exhibits share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from pages.widgets.state import View

DELTA_KEYS = ("estimator", "temperature", "low", "high")
"""The parameters that every table of deltas depends on."""


class Exhibit(NamedTuple):
    """A figure and the table behind it."""

    title: str
    """What it shows."""
    table: pd.DataFrame
    """The numbers; everything that identifies a row is a column."""
    figure: go.Figure | None = None
    """None for what is shown as a table only."""


class Maker(NamedTuple):
    """How an exhibit is made."""

    make: Callable[[View], Exhibit]
    keys: tuple[str, ...]
    """The parameters of the view that it depends on."""


def drawn(figure: go.Figure, table: pd.DataFrame) -> Exhibit:
    """Return an exhibit that has a figure; its title is the figure's."""
    return Exhibit(figure.layout.title.text, table, figure)
