"""What a task costs that is served besides a concept: its score grows, the concept's stays, everything else drifts."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import framed
from engine.figures.palette import CLUSTERS, EXAGGERATED, SUPPRESSED

PANELS = (
    ("score", "score_error", "score s", SUPPRESSED),
    ("task", "task_error", "task f", EXAGGERATED),
    ("drift", None, "drift of other concepts", CLUSTERS[2]),
    ("bound", None, "least KL to the tilt (nats)", CLUSTERS[3]),
)
"""Column, its standard error, title and colour."""
HOW = (
    "To the right the task counts for more while the mean score is held. Drift: by how much the mean energies of all "
    "other concepts change, as a share of what they were; its first point is what other noise alone does. The last "
    "panel is a bound: no law with these two means is nearer to the concept's own."
)
HEIGHT = 480


def drift_table(rows: list) -> pd.DataFrame:
    """Return the rows of `engine.samplers.injection.drift` as a table, with eta = ratio x strength."""
    table = pd.DataFrame(rows)
    table.insert(2, "eta", table["ratio"] * table["strength"])
    return table


def object_drift(table: pd.DataFrame, *, task: str, images: int) -> go.Figure:
    """Draw score, task, drift and bound against the task's weight.

    Parameters
    ----------
    table
        From `drift_table`.
    task
        What the task is, in a few words.
    images
        Images per row.
    """
    figure = make_subplots(2, 2, subplot_titles=[panel[2] for panel in PANELS], vertical_spacing=0.2)
    for i, (column, error, title, colour) in enumerate(PANELS):
        line = go.Scatter(
            x=table["ratio"], y=table[column], mode="lines+markers", name=title, showlegend=False,
            line={"color": colour, "width": 2},
            error_y=None if error is None else {"array": table[error], "thickness": 1, "width": 0},
            hovertemplate="η/β = %{x:.3g}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(line, i // 2 + 1, i % 2 + 1)
    figure.update_xaxes(automargin=True, showgrid=False)
    figure.update_xaxes(title_text="weight of the task η/β", row=2)
    figure.update_yaxes(automargin=True, nticks=5)
    framed(
        figure, title=f"What serving a task costs: {task}", how=HOW, height=HEIGHT,
        subtitle=f"matched mean score, bars are standard errors, n = {images} images a point",
    )  # fmt: skip
    return figure.update_layout(margin_t=92)
