"""Small panels that share their horizontal axis: several numbers of one table, each on a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import framed

PANEL, HEAD = 190, 112
"""Pixels of a row of panels, and of all that is above and below them."""
TITLE = 14
"""Size of a panel's title."""


class Panel(NamedTuple):
    """One number of a table."""

    column: str
    title: str
    colour: str
    error: str | None = None
    """Column of its standard error."""
    zero: bool = False
    """Whether the vertical axis begins at 0."""


def panel_curves(
    table: pd.DataFrame, x: str, panels: Sequence[Panel], *, columns: int, axis: str, hover: str
) -> go.Figure:
    """Draw a line with markers per panel.

    Parameters
    ----------
    table
        One row per point.
    x
        Column of the horizontal axis.
    panels
        What to draw, row by row.
    columns
        Panels side by side.
    axis, hover
        Title of the horizontal axis, and its short name in a hover line.
    """
    rows = -(-len(panels) // columns)
    titles = [panel.title for panel in panels]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, vertical_spacing=0.24 / max(rows - 1, 1), horizontal_spacing=0.09
    )
    for number, panel in enumerate(panels):
        row, column = number // columns + 1, number % columns + 1
        line = go.Scatter(
            x=table[x], y=table[panel.column], mode="lines+markers", name=panel.title, showlegend=False,
            line={"color": panel.colour, "width": 2},
            error_y=None if panel.error is None else {"array": table[panel.error], "thickness": 1, "width": 0},
            hovertemplate=f"{hover} = %{{x:.3g}}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(line, row, column)
        if panel.zero:
            figure.update_yaxes(rangemode="tozero", row=row, col=column)
    figure.update_xaxes(automargin=True, showgrid=False)
    for number in range(max(0, len(panels) - columns), len(panels)):
        figure.update_xaxes(title_text=axis, row=number // columns + 1, col=number % columns + 1)
    figure.update_yaxes(automargin=True, nticks=5)
    return figure


def headed(figure: go.Figure, **framing: Any) -> go.Figure:
    """A framed figure (see `framed`) whose title stands at its upper edge and leaves room for the panels' own."""
    figure.update_annotations(font_size=TITLE)
    framed(figure, **framing)
    return figure.update_layout(title={"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}}, margin_t=92)


def panel_height(count: int, columns: int) -> int:
    """Pixels that so many panels need."""
    return HEAD + PANEL * -(-count // columns)
