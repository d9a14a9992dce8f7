"""Which concepts occur together: the L0 curve, unique entries, spectra, shared directions and changed pairs.

Figures 19 to 21 of "Conceptual Blindspots in Generative Image Models". The statistics come from
`engine.blindspots.composition` and `.spectrum`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from engine.figures.style import (
    AMOUNT_SCALE,
    CLUSTERS,
    EXAGGERATED,
    GREY,
    GUIDE,
    NIGHT,
    SUPPRESSED,
    apply_layout,
    axis,
    colour_bar,
    concept_names,
    legend_below,
)

ESTIMATORS = {"images": "image-level Z^T Z per image", "tokens": "token-level Z^T Z per image"}
"""By what concepts occur together in."""
COSINES = {"images": "cosine of image energies", "tokens": "cosine of token codes"}
REAL = "real"
"""The curve of real images, grey."""
L0_HOW = (
    "How many pairs of concepts occur together more strongly than a threshold. Curves on top of each other: as many "
    "pairs are connected, though not necessarily the same ones."
)
UNIQUE_HOW = (
    "Share of a model's connected pairs that real images do not connect at the same threshold. One real half against "
    "the other shows how much of it is chance."
)
SPECTRUM_HOW = (
    "Strength of the leading directions of co-occurrence, both axes logarithmic. A straight line is a power law; below "
    "the real curve, the model varies less along directions of that rank."
)
SIMILARITY_HOW = (
    "Each cell: how parallel a real direction (row) is to a model's (column); a bright diagonal means the same "
    "directions in the same order. Directions of nearly equal strength may swap without meaning."
)
CHANGES_HOW = (
    "Each row is a pair of concepts: grey dot in real images, coloured dot in the model's. Blue: the model draws them "
    "together less, yellow: more. n: {} in which both fire, real and model."
)
SHORT = 9
"""Characters of a label on a narrow screen."""


def l0_curves(curves: pd.DataFrame, *, images: dict[str, int], composed: str = "tokens") -> go.Figure:
    """Draw the number of entries of Z^T Z above a threshold, per source.

    Parameters
    ----------
    curves
        Indexed by threshold (code squared per image), a column per source: entries.
    images
        Per source, its number of images.
    composed
        What concepts occur together in: `images` or `tokens`.
    """
    return _curves(
        curves.where(curves > 0), "%{y:,} entries above %{x:.3g}", "How many pairs of concepts are connected", images,
        L0_HOW, _thresholds(), axis("entries of Z^T Z above it", type="log", dtick=1), composed=composed,
    )  # fmt: skip


def unique_shares(
    shares: pd.DataFrame,
    *,
    images: dict[str, int],
    baseline: str | None = None,
    half: int = 0,
    composed: str = "tokens",
) -> go.Figure:
    """Draw the share of entries that real images lack, per model against the threshold.

    Parameters
    ----------
    shares
        Indexed by threshold, a column per model, and one for `baseline`.
    images
        Per model, its number of images.
    baseline, half
        The column that compares two real halves, if it was measured, and the images of one.
    composed
        What concepts occur together in: `images` or `tokens`.
    """
    figure = _curves(
        shares, "%{y:.1%} above %{x:.3g} are unique", "Connected pairs that real images do not have", images,
        UNIQUE_HOW, _thresholds(), axis("share of the model's entries", tickformat=".0%", range=[0, 1]),
        f"; {baseline}: {half:,} against {half:,}" if baseline else "", baseline, composed,
    )  # fmt: skip
    return figure.update_layout(height=360, legend_y=-0.27)


def spectra(values: pd.DataFrame, *, images: dict[str, int], composed: str = "tokens") -> go.Figure:
    """Draw the leading eigenvalues of every source on log-log axes.

    Parameters
    ----------
    values
        Indexed by rank from 1, a column per source: eigenvalues of Z^T Z over the number of images.
    images
        Per source, its number of images.
    composed
        What concepts occur together in: `images` or `tokens`.
    """
    return _curves(
        values.where(values > 0), "rank %{x}: %{y:.4g}", f"The {len(values)} strongest directions of co-occurrence",
        images, SPECTRUM_HOW, axis("rank", type="log"),
        axis("eigenvalue (code squared per image)", type="log", dtick=1), composed=composed,
    )  # fmt: skip


def _curves(
    table: pd.DataFrame, hover: str, title: str, images: dict[str, int], how: str, xaxis: dict[str, Any],
    yaxis: dict[str, Any], more: str = "", baseline: str | None = None, composed: str = "tokens",
) -> go.Figure:  # fmt: skip
    """Draw a line per column: a model has the same colour in every figure, real images are grey, two halves dotted."""
    figure, models = go.Figure(), [column for column in table if column not in (REAL, baseline)]
    for column in table:
        line = {"width": 1.8, "color": GREY, "dash": "dot" if column == baseline else "solid"}
        if column in models:
            line = {"width": 1.8, "color": CLUSTERS[models.index(column) % len(CLUSTERS)]}
        figure.add_scatter(x=table.index, y=table[column], mode="lines", name=column, line=line,
                           hovertemplate=f"{column}: {hover}<extra></extra>")  # fmt: skip
    subtitle = _counts(images, composed)
    if len(images) > 1 and len(set(images.values())) == 1:
        subtitle = f"{ESTIMATORS[composed]}; n = {next(iter(images.values())):,} images per source"
    return apply_layout(figure, title=title, subtitle=subtitle + more, how=how, height=380,
                        legend=legend_below(), xaxis=xaxis, yaxis=yaxis)  # fmt: skip


def _thresholds() -> dict[str, Any]:
    return axis("threshold (code squared per image)", type="log", exponentformat="power")


def _counts(images: dict[str, int], composed: str) -> str:
    return f"{ESTIMATORS[composed]}; n = " + ", ".join(f"{count:,} {name} images" for name, count in images.items())


def similarity_heat(
    similarity: Float[np.ndarray, "real model"],
    overlap: float,
    *,
    model: str,
    images: dict[str, int],
    composed: str = "tokens",
) -> go.Figure:
    """Draw |V_real^T V_model|.

    Parameters
    ----------
    similarity
        In [0, 1], a real direction per row.
    overlap
        Share of the model's leading subspace inside the real one.
    model, images
        Name of the model, and the number of images of the real source and of the model.
    composed
        What concepts occur together in: `images` or `tokens`.
    """
    real_rank, model_rank = (np.arange(1, size + 1) for size in similarity.shape)
    heat = go.Heatmap(
        z=similarity, x=model_rank, y=real_rank, zmin=0, zmax=1, colorscale=AMOUNT_SCALE,
        colorbar=colour_bar("|cosine|"),
        hovertemplate="real direction %{y}, " + model + " %{x}: %{z:.2f}<extra></extra>",
    )  # fmt: skip
    shared = {"showgrid": False, "constrain": "domain"}
    return apply_layout(
        go.Figure(heat), title=f"{model}: are its directions the real ones?",
        subtitle=f"{_counts(images, composed)}; {overlap:.0%} of its leading space is shared", how=SIMILARITY_HOW,
        height=450,
        xaxis=axis(f"direction of {model}, strongest first", **shared), plot_bgcolor=NIGHT,
        yaxis=axis("direction of real images", autorange="reversed", scaleanchor="x", **shared),
    )  # fmt: skip


def changed_cooccurrence(
    rows: pd.DataFrame, *, model: str, images: dict[str, int], composed: str = "tokens"
) -> go.Figure:
    """Draw the pairs of concepts whose co-occurrence changed most.

    Parameters
    ----------
    rows
        Largest change first: ``first, second`` (concepts), ``first_label, second_label, real, model`` (cosines),
        ``real_tokens, model_tokens``; ``significant`` where it is known. ``customdata`` of the dots holds the two
        concepts.
    model, images
        Name of the model, and the number of images of the real source and of the model.
    composed
        What concepts occur together in: `images` or `tokens`.
    """
    sides = (concept_names(rows[f"{side}_label"], rows[side]) for side in ("first", "second"))
    counts = zip(rows["real_tokens"], rows["model_tokens"], strict=True)
    names = [f"{a} + {b} (n = {n:,}, {m:,})" for a, b, (n, m) in zip(*sides, counts, strict=True)]
    short = [
        f"{_cut(row.first_label)} {row.first} + {_cut(row.second_label)} {row.second}" for row in rows.itertuples()
    ]
    colours = np.where(rows["model"] < rows["real"], SUPPRESSED, EXAGGERATED).tolist()
    figure = go.Figure()
    for number, row in enumerate(rows.itertuples()):
        figure.add_shape(type="line", x0=row.real, x1=row.model, y0=number, y1=number,
                         line={"color": colours[number], "width": 2}, opacity=0.6)  # fmt: skip
    for column, name, colour in (("real", "real", GREY), ("model", model, colours)):
        figure.add_scatter(
            x=rows[column], y=names, mode="markers", name=name, customdata=rows[["first", "second"]].to_numpy(),
            marker={"size": 9, "color": colour, "line": {"width": 1, "color": GUIDE}},
            hovertemplate="%{y}<br>" + name + ": cosine %{x:.3f}<extra></extra>",
        )  # fmt: skip
    sure = (
        f"; {int(rows['significant'].sum())} of these {len(rows)} pairs are significant"
        if "significant" in rows
        else ""
    )
    return apply_layout(
        figure, title=f"{model}: pairs of concepts that changed most", subtitle=_counts(images, composed) + sure,
        how=CHANGES_HOW.format(composed), height=140 + 24 * len(rows),
        meta={"narrow": {"yaxis": {"tickvals": names, "ticktext": short}}},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        xaxis=axis(COSINES[composed], range=[-0.02, 1.02]), yaxis={"autorange": "reversed", "automargin": True},
    )  # fmt: skip


def _cut(label: object) -> str:
    """Return the beginning of a label for a narrow screen, where the number beside it tells concepts apart."""
    text = label if isinstance(label, str) else ""
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
