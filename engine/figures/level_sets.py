"""Level sets in the plane: members on the curves of a small classifier, and how they spread by each method.

The circles are those of "EquiDiff" (Sadlej 2025), figure 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from engine.figures.style import CLUSTERS, EXAGGERATED, NEUTRAL, SUPPRESSED, apply_layout, axis, legend_below

METHODS = {
    "gradient": ("descent, Algorithm 1", EXAGGERATED, "diamond"),
    "projection": ("projection", NEUTRAL, "square"),
    "walk": ("walk", SUPPRESSED, "circle"),
}
LAWS_HOW = (
    "Standard normal points given z1²/a² + z2²/b² = 1, by the angle of (z1/a, z2/b). Descent and projection end where "
    "their starts and the slopes of f lead them; the walk has the prior's own law on the curve."
)
CIRCLES_HOW = (
    "A network of three layers tells points inside the unit circle from those outside. Each curve holds all points to "
    "which it answers as to one query; the dots are members that a walk drew with the prior's law."
)


def arc_shares(rows: pd.DataFrame, *, members: int) -> go.Figure:
    """Draw the share of members in each arc of an ellipse, by method, against the exact law.

    Parameters
    ----------
    rows
        ``arc, method, share`` with the method ``exact`` or one of `METHODS`.
    members
        Members of each method.
    """
    figure = go.Figure()
    count = rows["arc"].max() + 1
    exact = rows[rows["method"] == "exact"].sort_values("arc")
    figure.add_trace(go.Scatter(
        x=(exact["arc"] + 0.5) * 360 / count, y=exact["share"], name="exact", mode="lines",
        line={"width": 2, "shape": "hvh", "color": "gray"}, hovertemplate="exact %{y:.3f}<extra></extra>",
    ))  # fmt: skip
    for method, (name, colour, symbol) in METHODS.items():
        some = rows[rows["method"] == method].sort_values("arc")
        figure.add_trace(go.Scatter(
            x=(some["arc"] + 0.5) * 360 / count, y=some["share"], name=name, mode="markers",
            marker={"color": colour, "size": 8, "symbol": symbol, "line": {"width": 1, "color": "gray"}},
            hovertemplate="%{y:.3f}<extra>" + name + "</extra>",
        ))  # fmt: skip
    return apply_layout(
        figure, title="Where members of a level set lie",
        subtitle=f"ellipse, {count} arcs, n = {members:,} members a method",
        how=LAWS_HOW, height=420, hovermode="x", legend=legend_below(-0.22),
        xaxis=axis("angle (degrees)", showgrid=False, dtick=60), yaxis=axis("share of members", rangemode="tozero"),
    )  # fmt: skip


def level_curves(
    points: Float[np.ndarray, "n 2"],
    outside: np.ndarray,
    axis_values: np.ndarray,
    responses: Float[np.ndarray, "side side"],
    sets: Mapping[str, tuple[Sequence[float], float, Float[np.ndarray, "m 2"]]],
) -> go.Figure:
    """Draw a classifier's training points, its level curves through queries, and members on them.

    Parameters
    ----------
    points, outside
        Training points, and which of them lie outside the circle.
    axis_values, responses
        The classifier over a square grid; first axis z1.
    sets
        Name to query, its response and members.
    """
    figure = go.Figure()
    for name, chosen, opacity in (("inside", ~outside, 0.5), ("outside", outside, 0.22)):
        figure.add_trace(go.Scatter(
            x=points[chosen, 0], y=points[chosen, 1], mode="markers", name=name, hoverinfo="skip", showlegend=False,
            marker={"color": "gray", "size": 3, "opacity": opacity},
        ))  # fmt: skip
    for number, (name, (query, target, members)) in enumerate(sets.items()):
        colour = CLUSTERS[number]
        figure.add_trace(go.Contour(
            x=axis_values, y=axis_values, z=responses.T, showscale=False, hoverinfo="skip", showlegend=False,
            contours={"start": target, "end": target, "size": 1, "coloring": "none"},
            line={"color": colour, "width": 1.5, "smoothing": 0},
        ))  # fmt: skip
        figure.add_trace(go.Scatter(
            x=members[:, 0], y=members[:, 1], mode="markers", name=name, marker={"color": colour, "size": 5},
            legendgroup=name, hovertemplate="(%{x:.2f}, %{y:.2f})<extra>" + name + "</extra>",
        ))  # fmt: skip
        figure.add_trace(go.Scatter(
            x=[query[0]], y=[query[1]], mode="markers", legendgroup=name, showlegend=False, name=name,
            marker={"color": colour, "size": 13, "symbol": "x", "line": {"color": "white", "width": 1.5}},
            hovertemplate=f"query: log-odds {target:.2f}<extra></extra>",
        ))  # fmt: skip
    plane = {"showgrid": False, "zeroline": False, "range": [-3, 3]}
    count = len(next(iter(sets.values()))[2])
    figure = apply_layout(
        figure, title="All that a classifier cannot tell apart",
        subtitle=f"three queries (×), n = {count} members each, {len(points):,} training points",
        how=CIRCLES_HOW, height=420, legend=legend_below(-0.22), xaxis=axis("z1", **plane), yaxis=axis("z2", **plane),
    )  # fmt: skip
    return figure.update_yaxes(scaleanchor="x", constrain="domain").update_xaxes(constrain="domain")
