"""Cumulative misfires: how many images have one among their k strongest concepts."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from engine.figures.style import CLUSTERS, apply_layout, axis, legend_below

HOW = (
    "Share of images in which at least one of the k strongest concepts cannot be seen, with 95 % intervals. A curve "
    "that rises at once misfires where the dictionary is surest."
)


def misfire_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the cumulative misfire rate of every source (Conceptual Blindspots, Figures 22 and 23).

    Parameters
    ----------
    rows
        source, k, share, share_low, share_high.
    """
    figure = go.Figure()
    for place, (source, own) in enumerate(rows.groupby("source", sort=False)):
        colour = CLUSTERS[place % len(CLUSTERS)]
        ends = [*own["share_high"], *own["share_low"][::-1]]
        figure.add_scatter(
            x=[*own["k"], *own["k"][::-1]], y=ends, fill="toself", fillcolor=colour, opacity=0.08, line={"width": 0},
            hoverinfo="skip", showlegend=False, legendgroup=str(source),
        )  # fmt: skip
        figure.add_scatter(
            x=own["k"], y=own["share"], mode="lines+markers", name=str(source), legendgroup=str(source),
            line={"color": colour, "width": 2}, marker={"size": 5},
            hovertemplate="%{y:.0%} of " + str(source).replace("%", "%%") + " at k = %{x}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(**axis("k strongest concepts"))
    figure.update_yaxes(**axis("images with a misfire"), tickformat=".0%", range=[0, 1.02])
    return apply_layout(
        figure, title="Cumulative misfires", subtitle="by source", how=HOW, height=400, legend=legend_below(-0.25)
    )
