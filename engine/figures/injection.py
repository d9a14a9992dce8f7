"""What a task costs that is served besides a concept: its score grows, the concept's stays, everything else drifts."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from engine.figures.palette import CLUSTERS, EXAGGERATED, SUPPRESSED
from engine.figures.panels import Panel, headed, panel_curves

PANELS = (
    Panel("score", "score s", SUPPRESSED, "score_error"),
    Panel("task", "task f", EXAGGERATED, "task_error"),
    Panel("drift", "drift of other concepts", CLUSTERS[2]),
    Panel("bound", "least KL to the tilt (nats)", CLUSTERS[3]),
)
HOW = (
    "To the right the task counts for more while the mean score is held. Drift: by how much the mean energies of all "
    "other concepts change, as a share of what they were; its first point is what other noise alone does. The last "
    "panel is a bound: no law with these two means is nearer to the concept's own."
)
HEIGHT = 480


def drift_table(rows: list) -> pd.DataFrame:
    """Return the rows of an injection study as a table, with eta = ratio x strength."""
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
    figure = panel_curves(table, "ratio", PANELS, columns=2, axis="weight of the task η/β", hover="η/β")
    return headed(
        figure, title=f"What serving a task costs: {task}", how=HOW, height=HEIGHT,
        subtitle=f"matched mean score, bars are standard errors, n = {images} images a point",
    )  # fmt: skip
