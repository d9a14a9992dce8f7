"""Single images: how far drawn images are from real ones, which are copies, and what one pair differs in.

Figures 9 and 10 of "Conceptual Blindspots in Generative Image Models". The statistics come from
`engine.blindspots.divergence`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int

from engine.figures.style import (
    CLUSTERS,
    EXAGGERATED,
    GREY,
    SUPPRESSED,
    apply_layout,
    axis,
    concept_names,
    legend_below,
)

UNIT = "divergence (l2 of the energy difference)"
HISTOGRAM_HOW = (
    "Each caption counts once per model. Further left: drawn images closer in concepts to the real image of the same "
    "caption. Dashed lines: medians."
)
COPIES_HOW = (
    "Each dot is a drawn image: left means close in concepts to its own real image, up means close to some real image. "
    "Top left, coloured: nearer to a real image than almost any two real images are to each other, so look at them."
)
PAIR_HOW = (
    "The concepts in which the two images of one pair differ most. Left: energy in the real image, right: in the drawn "
    "one. A bar on one side only is something missing, or something added."
)


def divergence_histograms(
    edges: Float[np.ndarray, " bins+1"],
    counts: dict[str, Int[np.ndarray, " bins"]],
    medians: dict[str, float],
    *,
    finding: str = "",
    height: int = 360,
) -> go.Figure:
    """Draw overlapping histograms of the divergence of several models on the same captions.

    Parameters
    ----------
    edges
        Shared bin edges, in units of energy.
    counts
        Per model, pairs per bin.
    medians
        Per model, the median.
    finding
        The paired test in words (see `paired_finding`); empty for none.
    height
        Pixels.
    """
    figure = go.Figure()
    centres, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    for number, (model, count) in enumerate(counts.items()):
        colour = CLUSTERS[number % len(CLUSTERS)]
        figure.add_bar(
            x=centres, y=count, width=widths, name=f"{model}: median {medians[model]:.3g}", opacity=0.55,
            marker={"color": colour, "line": {"width": 0}}, hovertemplate="%{y} pairs at %{x:.3g}<extra></extra>",
        )  # fmt: skip
        figure.add_vline(x=medians[model], line={"width": 1.5, "dash": "dash", "color": colour})
    pairs = max(int(np.sum(count)) for count in counts.values())
    return apply_layout(
        figure, title="Divergence of single images: " + " and ".join(counts),
        subtitle=f"n = {pairs:,} paired images" + (f"; {finding}" if finding else ""), how=HISTOGRAM_HOW,
        height=height, barmode="overlay", bargap=0, legend=legend_below(-0.25), xaxis=axis(UNIT, showgrid=False),
        yaxis=axis("pairs", rangemode="tozero"),
    )  # fmt: skip


def paired_finding(change: float, low: float, high: float, p: float, effect: float, closer: float) -> str:
    """Return in one line how the second model differs from the first (`engine.blindspots.divergence`)."""
    value = "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    return (
        f"change {change:+.3g} [{low:+.3g}, {high:+.3g}], {value} (paired t), d = {effect:+.2f}, closer on {closer:.0%}"
    )


def memorisation_scatter(table: pd.DataFrame, *, model: str, level: float) -> go.Figure:
    """Draw divergence against the similarity of the nearest real image.

    Parameters
    ----------
    table
        Indexed by pair: ``l2, similarity`` (cosine), ``confirmed`` (bool).
    model
        Name for the title.
    level
        The level at which copies were confirmed.
    """
    figure = go.Figure()
    for confirmed, name, colour, size in ((False, "other pairs", GREY, 4), (True, "confirmed", EXAGGERATED, 8)):
        rows = table[table["confirmed"].to_numpy(bool) == confirmed]
        figure.add_scattergl(
            x=rows["l2"], y=rows["similarity"], mode="markers", name=f"{name} ({len(rows):,})",
            customdata=rows.index.to_numpy(), marker={"size": size, "color": colour, "opacity": 0.7},
            hovertemplate="pair %{customdata}: divergence %{x:.3g}, cosine %{y:.3f}<extra></extra>",
        )  # fmt: skip
    return apply_layout(
        figure, title=f"{model}: which drawn images are copies?",
        subtitle=f"n = {len(table):,} paired images; confirmed at {level:.0%} against the real images' own neighbours",
        how=COPIES_HOW, height=420, legend=legend_below(), xaxis=axis(UNIT),
        yaxis=axis("cosine to the nearest real image"),
    )  # fmt: skip


def pair_concepts(rows: pd.DataFrame, *, model: str, pair: int, l2: float) -> go.Figure:
    """Draw the leading concepts of one pair, real energy to the left and drawn energy to the right.

    Parameters
    ----------
    rows
        Indexed by concept, leading first: ``label, real, model`` (energies). ``customdata`` of the bars holds the
        concepts.
    model, pair
        For the title.
    l2
        The pair's divergence.
    """
    names = concept_names(rows["label"], rows.index)
    figure = go.Figure()
    for column, sign, colour, name in (("real", -1, SUPPRESSED, "real"), ("model", 1, EXAGGERATED, model)):
        energy = rows[column].to_numpy(np.float64)
        figure.add_bar(
            x=sign * energy, y=names, orientation="h", name=name, marker={"color": colour}, textposition="none",
            text=[f"{value:.3g}" for value in energy], hovertemplate="%{y}: energy %{text}<extra></extra>",
            customdata=rows.index.to_numpy(np.uint32), meta={"role": "concepts"},
        )  # fmt: skip
    reach = 1.05 * float(max(rows[["real", "model"]].to_numpy().max(initial=0.0), 1e-9))
    ticks = np.array([-1, -0.5, 0, 0.5, 1]) * float(f"{reach / 1.05:.2g}")
    return apply_layout(
        figure, title=f"{model}, pair {pair}: what differs",
        subtitle=f"n = 1 pair; divergence {l2:.3g} (l2 norm of the energy difference)", how=PAIR_HOW,
        height=140 + 24 * len(rows), barmode="overlay",
        xaxis=axis("energy (sum of codes over tokens)", range=[-reach, reach], tickvals=ticks,
                   ticktext=[f"{abs(tick):g}" for tick in ticks]),
        yaxis={"autorange": "reversed", "automargin": True},
    )  # fmt: skip
