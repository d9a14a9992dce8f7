"""Samplers at equal activation: how far from the prior their images lie, and how different from each other they are."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import framed
from engine.figures.palette import CLUSTERS

HOW = (
    "Further left is nearer to the prior's own images, further up more varied within a concept. The dotted line is "
    "what fresh samples of the prior amount to, by chance alone."
)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
GREY = "#8d8590"
HEIGHT = 400
NARROW_HEIGHT = 340
"""Of a panel on a phone, where they stand below each other."""
DISTANCE, DIVERSITY = "Fréchet distance", "diversity"


def distance_diversity(rows: pd.DataFrame, chance: dict[str, float], *, concepts: int, count: int) -> go.Figure:
    """Draw Fréchet distance to the prior against diversity, a panel per judge and a mark per method.

    Parameters
    ----------
    rows
        One row per judge and method in the order to show: ``judge, method, matched`` (concepts that reached the
        target), ``frechet`` and ``diversity`` (mean cosine distance of two images of a concept).
    chance
        Judge to the Fréchet distance of fresh samples of the prior.
    concepts, count
        Concepts drawn, and images of each by a method.
    """
    judges, methods = list(chance), list(dict.fromkeys(rows["method"]))
    figure = make_subplots(1, len(judges), horizontal_spacing=0.11)
    for panel, judge in enumerate(judges, start=1):
        some = rows[rows["judge"] == judge].set_index("method")
        for i, method in enumerate(methods):
            mark = go.Scatter(
                x=[some.at[method, "frechet"]], y=[some.at[method, "diversity"]], name=method, mode="markers",
                legendgroup=method, showlegend=panel == 1,
                marker={"size": 13, "color": CLUSTERS[i % len(CLUSTERS)], "symbol": SYMBOLS[i % len(SYMBOLS)],
                        "line": {"width": 1.2, "color": GREY}},
                hovertemplate=f"{DISTANCE} %{{x:.3f}}, {DIVERSITY} %{{y:.3f}}",
            )  # fmt: skip
            figure.add_trace(mark, 1, panel)
        figure.add_vline(
            x=chance[judge], line={"width": 1, "dash": "dot", "color": GREY}, row=1, col=panel,
            annotation={"text": "chance", "font": {"size": 11, "color": GREY}}, annotation_position="bottom right",
        )  # fmt: skip
        figure.update_xaxes(title_text=f"{DISTANCE}, seen by {judge}", row=1, col=panel)
    figure.update_xaxes(title_standoff=8, automargin=True, rangemode="tozero", zeroline=False)
    figure.update_yaxes(title_text=DIVERSITY, automargin=True, rangemode="tozero", zeroline=False, nticks=6)
    return framed(
        figure, title="Distance to the prior against diversity", how=f"{nearest(rows, concepts)} {HOW}",
        subtitle=f"equal activation, n = {concepts} concepts of the demo atlas x {count} images of each method",
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom"},
        height=HEIGHT, meta={"narrow": _stacked(len(judges))},
    )  # fmt: skip


def nearest(rows: pd.DataFrame, concepts: int) -> str:
    """Say, per judge, which method lies nearest to the prior, by how much, and how often it reached the target.

    Parameters
    ----------
    rows, concepts
        As in `distance_diversity`.
    """
    sentences = []
    for judge, some in rows.dropna(subset="frechet").groupby("judge", sort=False):
        ranked = some.sort_values("frechet", kind="stable")
        first = ranked.iloc[0]
        sentence = f"Lowest {DISTANCE} by {judge}: {first['method']} ({first['frechet']:.3f})"
        if len(ranked) > 1:
            second = ranked.iloc[1]
            less = second["frechet"] - first["frechet"]
            share = f"{100 * less / second['frechet']:.0f} %"
            sentence += f", {less:.3f} or {share} below the next, {second['method']} ({second['frechet']:.3f})"
        sentences.append(f"{sentence}; it reached the target for {first['matched']} of {concepts} concepts.")
    return " ".join(sentences)


def _stacked(panels: int) -> dict[str, dict]:
    """Domains of axes whose panels stand below each other."""
    found: dict[str, dict] = {}
    for i in range(panels):
        number = str(i + 1) if i else ""
        top = 1 - i / panels
        found[f"xaxis{number}"] = {"domain": [0, 1]}
        found[f"yaxis{number}"] = {"domain": [top - 1 / panels + (0.24 / panels if i < panels - 1 else 0), top]}
    return found
