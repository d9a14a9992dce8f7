"""Which concepts appear together: the L0 curve, unique entries, spectra, shared directions and changed pairs.

Paper 004: figures 19 to 21. The statistics come from `engine.blindspots.composition` and `.spectrum`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.figures.frame import framed
from engine.figures.labels import concept_names
from engine.figures.palette import AMOUNT_SCALE, CLUSTERS, EXAGGERATED, GUIDE, NIGHT, SUPPRESSED

GREY = "#8d8590"
_SHORT = 9
"""Characters of a label on a narrow screen."""
ESTIMATOR = "token-level Z^T Z per image"
L0_HOW = (
    "How many pairs of concepts share tokens more strongly than a threshold. Curves on top of each other: as many "
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
    "together less, yellow: more. n: tokens on which both fire, real and model."
)


def l0_curves(curves: pd.DataFrame, *, images: dict[str, int]) -> go.Figure:
    """Draw the number of entries of Z^T Z above a threshold, per source.

    Parameters
    ----------
    curves
        Indexed by threshold (code squared per image), a column per source: entries.
    images
        Per source, its number of images.
    """
    figure = _lines(curves, lambda column: curves[column].where(curves[column] > 0), "%{y:,} entries above %{x:.3g}")
    return framed(
        figure, title="How many pairs of concepts are connected", subtitle=_subtitle(images), how=L0_HOW, height=380,
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": "threshold (code squared per image)"}, "type": "log",
               "automargin": True, "exponentformat": "power"},
        yaxis={"title": {"text": "entries of Z^T Z above it"}, "type": "log", "automargin": True},
    )  # fmt: skip


def unique_shares(shares: pd.DataFrame, *, images: dict[str, int]) -> go.Figure:
    """Draw the share of entries that real images lack, per source against the threshold.

    Parameters
    ----------
    shares
        Indexed by threshold, a column per model (and one for the baseline of two real halves, if measured).
    images
        Per column, its number of images.
    """
    figure = _lines(shares, lambda column: shares[column], "%{y:.1%} above %{x:.3g} are unique")
    return framed(
        figure, title="Connected pairs that real images do not have", subtitle=_subtitle(images), how=UNIQUE_HOW,
        height=360, legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": "threshold (code squared per image)"}, "type": "log",
               "automargin": True, "exponentformat": "power"},
        yaxis={"title": {"text": "share of the model's entries"}, "tickformat": ".0%", "range": [0, 1],
               "automargin": True},
    )  # fmt: skip


def spectra(values: pd.DataFrame, *, images: dict[str, int]) -> go.Figure:
    """Draw the leading eigenvalues of every source on log-log axes.

    Parameters
    ----------
    values
        Indexed by rank from 1, a column per source: eigenvalues of Z^T Z over the number of images.
    images
        Per source, its number of images.
    """
    figure = _lines(values, lambda column: values[column].where(values[column] > 0), "rank %{x}: %{y:.4g}")
    return framed(
        figure, title=f"The {len(values)} strongest directions of co-occurrence", subtitle=_subtitle(images),
        how=SPECTRUM_HOW, height=380, legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": "rank"}, "type": "log", "automargin": True},
        yaxis={"title": {"text": "eigenvalue (code squared per image)"}, "type": "log",
               "automargin": True},
    )  # fmt: skip


def similarity_heat(similarity: np.ndarray, overlap: float, *, model: str, images: dict[str, int]) -> go.Figure:
    """Draw |V_real^T V_model|.

    Parameters
    ----------
    similarity : float array [r_real, r_model]
        In [0, 1].
    overlap
        Share of the model's leading subspace inside the real one.
    model
        Name for the title.
    images
        Images of the real source and of the model.
    """
    real_rank, model_rank = (np.arange(1, size + 1) for size in similarity.shape)
    heat = go.Heatmap(
        z=similarity, x=model_rank, y=real_rank, zmin=0, zmax=1, colorscale=AMOUNT_SCALE,
        colorbar={"title": {"text": "|cosine|", "side": "right"}, "thickness": 8, "len": 0.8, "outlinewidth": 0},
        hovertemplate="real direction %{y}, " + model + " %{x}: %{z:.2f}<extra></extra>",
    )  # fmt: skip
    figure = framed(
        go.Figure(heat), title=f"{model}: are its directions the real ones?",
        subtitle=f"{_subtitle(images)}; {overlap:.0%} of its leading space is shared", how=SIMILARITY_HOW, height=520,
        xaxis={"title": {"text": f"direction of {model}, strongest first"}, "showgrid": False, "constrain": "domain"},
        yaxis={"title": {"text": "direction of real images"}, "autorange": "reversed", "scaleanchor": "x",
               "showgrid": False, "constrain": "domain"},
    )  # fmt: skip
    return figure.update_layout(plot_bgcolor=NIGHT)


def changed_cooccurrence(rows: pd.DataFrame, *, model: str, images: dict[str, int]) -> go.Figure:
    """Draw the pairs of concepts whose co-occurrence changed most.

    Parameters
    ----------
    rows
        Largest change first: ``first, second`` (concepts), ``first_label, second_label, real, model`` (cosines),
        ``real_tokens, model_tokens``. ``customdata`` of the dots holds the two concepts.
    model
        Name for the title.
    images
        Images of the real source and of the model.
    """
    sides = (concept_names(rows[f"{side}_label"], rows[side]) for side in ("first", "second"))
    counts = zip(rows["real_tokens"], rows["model_tokens"], strict=True)
    names = [f"{a} + {b} (n = {n:,}, {m:,})" for a, b, (n, m) in zip(*sides, counts, strict=True)]
    short = [
        f"{_cut(row.first_label)} {row.first} + {_cut(row.second_label)} {row.second}" for row in rows.itertuples()
    ]
    both = rows[["first", "second"]].to_numpy()
    colours = np.where(rows["model"] < rows["real"], SUPPRESSED, EXAGGERATED)
    figure = go.Figure()
    for number, row in enumerate(rows.itertuples()):
        figure.add_shape(type="line", x0=row.real, x1=row.model, y0=number, y1=number,
                         line={"color": str(colours[number]), "width": 2}, opacity=0.6)  # fmt: skip
    for column, name, colour in (("real", "real", GREY), ("model", model, list(colours))):
        figure.add_trace(
            go.Scatter(x=rows[column], y=names, mode="markers", name=name, customdata=both,
                       marker={"size": 9, "color": colour, "line": {"width": 1, "color": GUIDE}},
                       hovertemplate="%{y}<br>" + name + ": cosine %{x:.3f}<extra></extra>")
        )  # fmt: skip
    return framed(
        figure, title=f"{model}: pairs of concepts that changed most", subtitle=_subtitle(images), how=CHANGES_HOW,
        height=140 + 24 * len(rows), meta={"narrow": {"yaxis": {"tickvals": names, "ticktext": short}}},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        xaxis={"title": {"text": "co-occurrence (cosine of token codes)"}, "range": [-0.02, 1.02], "automargin": True},
        yaxis={"autorange": "reversed", "automargin": True},
    )  # fmt: skip


def _cut(label: str | None) -> str:
    """Return the beginning of a label for a narrow screen, where the number beside it tells concepts apart."""
    text = label if isinstance(label, str) else ""
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def _lines(table: pd.DataFrame, values, hover: str) -> go.Figure:
    figure = go.Figure()
    for number, column in enumerate(table):
        figure.add_trace(
            go.Scatter(x=table.index, y=values(column), mode="lines", name=column,
                       line={"width": 1.8, "color": CLUSTERS[number % len(CLUSTERS)]},
                       hovertemplate=column + ": " + hover + "<extra></extra>")
        )  # fmt: skip
    return figure


def _subtitle(images: dict[str, int]) -> str:
    return f"{ESTIMATOR}; n = " + ", ".join(f"{count:,} {name} images" for name, count in images.items())
