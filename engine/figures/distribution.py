"""How deltas are spread: histogram and densities, both ends of a ranking, frequency, and one concept in every model.

The statistics come ready-made as tables (`engine.blindspots.distribution`). Densities, ranking and
frequency are figures 4, 8 and 11 of "Conceptual Blindspots in Generative Image Models".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.figures.style import (
    CLUSTERS,
    DELTA_SCALE,
    DOTTED,
    EXAGGERATED,
    GREY,
    NIGHT,
    SUPPRESSED,
    Basis,
    apply_layout,
    axis,
    concept_names,
    delta_colour,
    legend_below,
    mark_values,
)
from engine.figures.tables import LEVEL, certain

HISTOGRAM_HOW = (
    "The height is the number of concepts. Mass at the left end is suppressed, at the right end exaggerated. "
    f"Pale: concepts with q of {LEVEL:g} or more, which may be there by chance."
)
WHOLE_HOW = " Dotted curves: all concepts, of which those that fire in no image stand at 0.5."
DEAD_HOW = (
    " Hatched, cut off where they are many: concepts that fire in no image, which the paper's histogram holds, too."
)
DENSITY_HOW = (
    "Height is the density of concepts on a log axis, so that the tails show; at the bottom, none. Left of the first "
    "dotted line: "
    "suppressed, right of the second: exaggerated. A longer left tail: the model leaves out more than it adds."
)
RANKING_HOW = (
    "The concepts at both ends of the ranking. Dot: delta, bar: its 95 % interval. A concept's place is only as sure "
    "as its bar is short."
)
CERTAIN_HOW = f"{RANKING_HOW} Concepts with q < {LEVEL:g} were taken before any others."
FREQUENCY_HOW = (
    "Each dot is a concept, frequent ones to the right. Lines: 5th, 50th and 95th percentile of concepts of like "
    "frequency. Rare concepts scatter by chance too: compare with one real half against the other."
)
INTERVALS_HOW = (
    "Dot: the estimate, bar: its 95 % interval. A bar that stays inside the blue band is suppressed, inside the yellow "
    "band exaggerated; one that covers 0.5 agrees with reality."
)
BARE_HOW = "Dot: the estimate; intervals were not published. In the blue band: suppressed, in the yellow: exaggerated."
BINS = 40
"""Bars of a histogram."""
FEW = 2_000
"""Fewer concepts than this are drawn as larger dots."""


def delta_histogram(table: pd.DataFrame, *, model: str, basis: Basis, dead: int = 0) -> go.Figure:
    """Draw the histogram of one model's deltas: solid what is certain to differ, pale the rest.

    Parameters
    ----------
    table
        Concept table, live concepts only: ``delta`` in [0, 1] and ``q``.
    model, basis
        Name of the model, and what its deltas were computed with.
    dead
        Concepts of the dictionary that fire in no image, whose delta is 0.5: drawn hatched in that bar.
    """
    delta, sure = table["delta"].to_numpy(np.float64), certain(table)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    colours = [delta_colour(centre) for centre in centres]
    bars = [("certain to differ", sure, 1.0)] + ([("may be chance", ~sure, 0.4)] if not sure.all() else [])
    figure = go.Figure(
        [
            go.Bar(
                x=centres, y=np.histogram(delta[chosen], bins=edges)[0], width=0.92 / BINS, showlegend=False, name=name,
                marker={"color": colours, "opacity": opacity, "line": {"width": 0}},
                customdata=np.stack([edges[:-1], edges[1:]], axis=1), meta={"role": "range", "models": [model]},
                hovertemplate=f"%{{y}} concepts with delta %{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}, {name}"
                              "<extra></extra>",
            )
            for name, chosen, opacity in bars
        ]
    )  # fmt: skip
    highest = int(np.histogram(delta, bins=edges)[0].max(initial=0))
    middle = int(np.searchsorted(edges, 0.5, side="right")) - 1
    if dead:
        figure.add_bar(
            x=[centres[middle]], y=[dead], width=0.92 / BINS, showlegend=False, name="fire in no image",
            marker={"color": "rgba(0,0,0,0)", "line": {"width": 0},
                    "pattern": {"shape": "/", "size": 4, "fgcolor": GREY}},
            hovertemplate=f"{dead:,} concepts fire in no image: delta 0.5<extra></extra>",
        )  # fmt: skip
    mark_values(figure, basis.low, basis.high)
    for mark, name, side, shift in ((basis.low, "‹ suppressed", "left", 4), (basis.high, "exaggerated ›", "right", -4)):
        figure.add_annotation(x=mark, y=1, yref="paper", text=name, xanchor=side, yanchor="top", showarrow=False,
                              xshift=shift, font={"size": 11, "color": GREY})  # fmt: skip
    silent = f", and {dead:,} that never fire" if dead else ""
    return apply_layout(
        figure, title=f"{model}: delta of {len(delta):,} concepts{silent}", subtitle=basis.sentence(),
        how=HISTOGRAM_HOW + (DEAD_HOW if dead else ""), height=200, bargap=0, barmode="stack",
        xaxis=axis("delta (no unit)", range=[-0.01, 1.01], showgrid=False),
        # A large dictionary's silent concepts would flatten all other bars.
        yaxis=axis("concepts", type="linear", range=[0, 1.1 * max(highest, 1) + min(dead, highest)], nticks=5),
    )  # fmt: skip


def delta_densities(
    densities: pd.DataFrame, summary: pd.DataFrame, *, basis: Basis, everything: pd.DataFrame | None = None
) -> go.Figure:
    """Draw the log densities of delta of one or more models over each other.

    Parameters
    ----------
    densities
        Indexed by bin centre in [0, 1], a column per model: share of concepts per unit of delta.
    summary
        Indexed by model: ``concepts, median, skewness, suppressed, exaggerated`` (the last two are shares); shown
        when hovering over a curve. ``all_concepts, all_skewness`` go with `everything`.
    basis
        What the deltas were computed with.
    everything
        As `densities`, over all concepts of the dictionary: dotted.
    """
    seen = densities.to_numpy()[densities.to_numpy() > 0]
    floor, ceiling = (seen.min() / 2, seen.max()) if seen.size else (0.1, 1.0)
    silent = everything is not None and bool((summary["all_concepts"] > summary["concepts"]).any())
    if everything is not None and silent:
        ceiling = max(ceiling, everything.to_numpy().max())
    figure = go.Figure()
    for number, (model, row) in enumerate(summary.to_dict("index").items()):
        numbers = (
            f"{model}: median {row['median']:.2f}, skewness {row['skewness']:+.2f}, "
            f"{row['suppressed']:.1%} suppressed, {row['exaggerated']:.1%} exaggerated"
        )
        figure.add_scatter(
            x=densities.index, y=densities[model].clip(lower=floor), mode="lines", name=model,
            line={"shape": "hvh", "width": 1.6, "color": CLUSTERS[number % len(CLUSTERS)]}, customdata=densities[model],
            hovertemplate=f"density %{{customdata:.3g}} at delta %{{x:.3f}}<extra>{numbers}</extra>",
        )  # fmt: skip
        if everything is not None and row["all_concepts"] > row["concepts"]:
            figure.add_scatter(
                x=everything.index, y=everything[model].clip(lower=floor), mode="lines", showlegend=False,
                line={"shape": "hvh", "width": 1, "dash": "dot", "color": CLUSTERS[number % len(CLUSTERS)]},
                customdata=everything[model], hovertemplate=f"density %{{customdata:.3g}} at delta %{{x:.3f}}<extra>"
                f"{model}, all {row['all_concepts']:,.0f} concepts: skewness {row['all_skewness']:+.2f}</extra>",
            )  # fmt: skip
    mark_values(figure, basis.low, basis.high)
    powers = range(int(np.floor(np.log10(floor))), int(np.ceil(np.log10(ceiling))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if floor <= tick <= 1.3 * ceiling]
    return apply_layout(
        figure, title="How delta is spread over concepts", how=DENSITY_HOW + (WHOLE_HOW if silent else ""), height=380,
        legend=legend_below(), subtitle=f"{basis.sentence()}; {int(summary['concepts'].max()):,} concepts",
        xaxis=axis("delta (no unit)", range=[-0.01, 1.01], showgrid=False),
        yaxis=axis("concepts per unit of delta (share)", type="log",
                   range=np.log10([floor, 1.3 * ceiling]).tolist(), tickvals=ticks,
                   ticktext=[f"{tick:g}" for tick in ticks]),
    )  # fmt: skip


def delta_ranking(rows: pd.DataFrame, *, model: str, basis: Basis) -> go.Figure:
    """Draw some concepts, most suppressed on top, each with its interval; a dot's ``customdata`` is its concept.

    Parameters
    ----------
    rows
        Indexed by concept, in the order of the ranking: ``label, delta, ci_low, ci_high``; ``q`` where it is known.
    model, basis
        Name of the model, and what its deltas were computed with.
    """
    delta = rows["delta"].to_numpy(np.float64)
    dots = go.Scatter(
        x=delta, y=concept_names(rows["label"], rows.index), mode="markers", showlegend=False,
        customdata=rows.index.to_numpy(), meta={"role": "concepts"},
        marker={"size": 9, "color": [delta_colour(value) for value in delta], "line": {"width": 1, "color": GREY}},
        error_x={"type": "data", "symmetric": False, "array": rows["ci_high"] - delta,
                 "arrayminus": delta - rows["ci_low"], "color": GREY, "thickness": 1.5, "width": 0},
        hovertemplate="%{y}: delta %{x:.3f}<extra></extra>",
    )  # fmt: skip
    known = "q" in rows and rows["q"].notna().any()
    sure = f"; {certain(rows).sum()} of these {len(rows)} have q < {LEVEL:g}" if known else ""
    return apply_layout(
        mark_values(go.Figure(dots), basis.low, 0.5, basis.high), title=f"{model}: both ends of the ranking",
        subtitle=basis.sentence() + sure, how=CERTAIN_HOW if known else RANKING_HOW, height=120 + 22 * len(rows),
        xaxis=axis("delta (no unit)", range=[-0.02, 1.02], showgrid=False),
        yaxis={"autorange": "reversed", "showgrid": False, "automargin": True},
    )  # fmt: skip


def frequency_scatter(
    table: pd.DataFrame, bands: pd.DataFrame, *, model: str, spearman: float, basis: Basis
) -> go.Figure:
    """Draw misalignment against frequency in real images, with percentile bands.

    Parameters
    ----------
    table
        Indexed by concept: ``fires`` (token codes above zero in real images), ``value`` (delta).
    bands
        Indexed by frequency: ``low, middle, high``; rows of empty bins may be nan.
    model
        Name for the title.
    spearman
        Rank correlation of frequency with the distance from 0.5.
    basis
        What the deltas were computed with.
    """
    shown = table[table["fires"] > 0]
    value = shown["value"].to_numpy(np.float32)
    dots: dict[str, Any] = {"size": 4, "opacity": 0.5}
    if len(table) < FEW:
        dots = {"size": 7, "opacity": 0.9, "line": {"width": 0.6, "color": "rgba(255,255,255,0.5)"}}
    figure = go.Figure(go.Scattergl(
        x=shown["fires"], y=value, customdata=shown.index.to_numpy(np.uint32), mode="markers", showlegend=False,
        marker={**dots, "color": value, "colorscale": DELTA_SCALE, "cmin": 0, "cmax": 1}, meta={"role": "concepts"},
        hovertemplate="concept %{customdata}: fires %{x:,} times, delta %{y:.3f}<extra></extra>",
    ))  # fmt: skip
    kept = bands.dropna()
    for column, name, dash in (("low", "5th percentile", "dot"), ("middle", "median", "solid"),
                               ("high", "95th percentile", "dot")):  # fmt: skip
        figure.add_scatter(x=kept.index, y=kept[column], mode="lines", name=name, showlegend=False,
                           line={"color": "#ffffff", "width": 1.5, "dash": dash})  # fmt: skip
    return apply_layout(
        figure, title=f"{model}: are rare concepts the misaligned ones?",
        subtitle=f"{basis.sentence()}; {len(shown):,} concepts; Spearman with |delta - 0.5|: {spearman:.2f}",
        how=FREQUENCY_HOW, height=420, plot_bgcolor=NIGHT,
        xaxis=axis("token codes above zero in real images", type="log", showgrid=False),
        yaxis=axis("delta (no unit)", range=[-0.02, 1.02], showgrid=False, zeroline=False),
    )  # fmt: skip


def delta_intervals(rows: pd.DataFrame, *, concept: int, basis: Basis) -> go.Figure:
    """Draw one concept's delta per model with 95 % intervals, between the two thresholds (a forest plot).

    Parameters
    ----------
    rows
        Indexed by model: ``delta, ci_low, ci_high, q, energy_real, energy_model``. Intervals that are nan for every
        model are left out.
    concept
        Its id, for the title.
    basis
        What the deltas were computed with.
    """
    rows = rows.iloc[::-1]
    delta = rows["delta"].to_numpy(np.float64)
    low, high = rows["ci_low"].to_numpy(np.float64), rows["ci_high"].to_numpy(np.float64)
    bare = bool(np.isnan(low).all() and np.isnan(high).all())
    certainty = "" if bare else " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>q = %{customdata[2]:.2g},"
    bar = {"type": "data", "symmetric": False, "array": high - delta, "arrayminus": delta - low, "color": GREY,
           "thickness": 2, "width": 0}  # fmt: skip
    tall = {"yref": "paper", "y0": 0, "y1": 1}
    shapes = [
        {"type": "rect", "x0": left, "x1": right, **tall, "fillcolor": colour, "opacity": 0.18, "line": {"width": 0},
         "layer": "below"}
        for left, right, colour in ((0.0, basis.low, SUPPRESSED), (basis.high, 1.0, EXAGGERATED))
    ]  # fmt: skip
    shapes.append({"type": "line", "x0": 0.5, "x1": 0.5, **tall, "line": DOTTED})
    dots = go.Scatter(
        x=delta, y=list(rows.index), mode="markers", showlegend=False,
        marker={"size": 12, "color": [delta_colour(value) for value in delta], "line": {"width": 1.5, "color": GREY}},
        error_x=None if bare else bar,
        customdata=rows[["ci_low", "ci_high", "q", "energy_real", "energy_model"]].to_numpy(np.float64),
        hovertemplate=f"%{{y}}: delta %{{x:.3f}}{certainty} energy %{{customdata[3]:.3f}} {basis.reference}, "
                      "%{customdata[4]:.3f} here<extra></extra>",
    )  # fmt: skip
    fixed = {"showgrid": False, "fixedrange": True}
    return apply_layout(
        go.Figure(dots), title=f"Concept {concept}: delta per model", subtitle=basis.sentence(),
        how=BARE_HOW if bare else INTERVALS_HOW, height=64 + 44 + 34 * len(rows), shapes=shapes,
        xaxis=axis("delta", range=[-0.02, 1.02], tickvals=[0, basis.low, 0.5, basis.high, 1], zeroline=False, **fixed),
        yaxis={"automargin": True, **fixed},
    )  # fmt: skip
