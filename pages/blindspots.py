"""Blindspots: every model's deltas over all concepts, what each model misses most, and what models miss alike."""

from html import escape

import pandas as pd
import streamlit as st

from engine.figures.tables import LEVEL
from pages.exhibits import named
from pages.exhibits.blindspots import ends, ranked
from pages.exhibits.shared import members
from pages.widgets import controls, data, lists, markup, state, tiles, url
from pages.widgets.exhibit import show, takeaway
from pages.widgets.live import link, live

KEYS = ("model", "estimator", "temperature", "low", "high", "top", "quantity", "margin")
SHARED = 8


def summary(view: state.View) -> None:
    """Every model's deltas in one line of numbers."""
    found = named("delta-summary", view)
    measured = not data.current().info.published
    heads = ["Model", "median δ", "skewness", f"δ < {view.low:g}", f"δ > {view.high:g}"]
    heads += ["q < 0.05", "images"] if measured else []
    body = "".join(
        f"<tr><td><b>{escape(row.model)}</b></td><td>{markup.dot(row.median)} {row.median:.2f}</td>"
        f"<td>{row.skewness:+.2f}</td><td>{markup.percent(row.suppressed)}</td><td>{markup.percent(row.exaggerated)}</td>"
        + (f"<td>{row.significant:,} of {row.concepts:,}</td><td>{row.images:,}</td>" if measured else "")
        + "</tr>"
        for row in found.exhibit.table.itertuples()
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    live(
        f'{takeaway(found)}<div class="ba-caption"><b>In numbers</b> <span>{data.basis(view).sentence()}</span>'
        '<div class="ba-note">Median 0.5 and skewness 0: as much is left out as is added. Negative skewness: the '
        "long tail is on the suppressed side.</div></div>"
        f'<div class="ba-scroll"><table class="ba-table"><tr>{head}</tr>{body}</table></div>',
        key="summary",
    )


@st.fragment
def one_model() -> None:
    """One model's ranking as pictures and as intervals, and whether rare concepts are the misaligned ones."""
    view = url.current("blindspots", KEYS)
    st.header("What one model misses and overdoes", anchor="ranking", divider="gray")
    controls.model_choice(view)
    pictures, intervals = st.columns([11, 9], gap="large")
    with pictures:
        halves = "".join(
            f"<div><h3>Most {side} {lists.origin(side, view.model)}</h3>"
            f'<div class="ba-list">{tiles.ranked_tiles(rows, view.model, side)}</div></div>'
            for side, rows in ends(view, view.top).items()
        )
        live(f'<div class="ba-split">{halves}</div>{more(view, len(ranked(view)))}', key="ranking")
    with intervals:
        show("delta-ranking", view)
    show("frequency", view)


def more(view: state.View, concepts: int) -> str:
    """Return how to read the pictures, and the link that shows more of them."""
    what = (
        f"δ with its 95 % interval, Benjamini-Hochberg q over {concepts:,} live concepts, share of real images. "
        f"{lists.CERTAIN_FIRST}"
    )
    if data.current().info.published:
        what = f"{concepts:,} live concepts. Intervals, q and images were not published."
    grow = ""
    if view.top < min(96, concepts // 2):
        grow = link({"top": min(96, view.top + 24)}, "Show more", css="ba-chip ba-more")
    return f'<p class="ba-note">{what}</p><p>{grow}</p>'


@st.fragment
def together() -> None:
    """Blindspots of all models at once, and those of one model alone."""
    view = url.current("blindspots", KEYS)
    st.header("Shared by all, or one model's own", anchor="shared", divider="gray")
    with st.columns([9, 11])[0]:
        controls.margin_choice(view)
    found = named("shared-blindspots", view)
    models, rows = data.current().models, found.exhibit.table
    how = (
        f"Universal: δ below {view.low:g} (above {view.high:g}) in every model. Specific: in one model, while every "
        f"other is at least {view.margin:g} inside the threshold: δ of {view.low + view.margin:g} or more (of "
        f"{view.high - view.margin:g} or less). Dots: δ of {', '.join(models)}."
    )
    if data.current().has_images:
        how += f" Suppressed: real images. Exaggerated: drawn by the model, under “Every model” by {models[0]}."
    groups = group("Every model", rows, "universal", models) + "".join(
        group(f"Only {model}", rows, f"specific to {model}", models, model) for model in models
    )
    live(f'{takeaway(found)}<p class="ba-note">{escape(how)}</p>{groups}', key="shared")


def group(title: str, rows: pd.DataFrame, column: str, models: list[str], model: str | None = None) -> str:
    """Return the suppressed and the exaggerated blindspots of one group side by side."""
    halves = ""
    for name, sign in (("suppressed", -1), ("exaggerated", 1)):
        some = members(rows, column, sign, [model] if model else models)
        source = (model or models[0]) if name == "exaggerated" else "real"
        shown = tiles.shared_tiles(some, models, model=model or models[0], source=source, count=SHARED)
        nearly = int((rows[f"nearly {column}"] == sign).sum()) if model else 0
        halves += f'<div><p class="ba-note">{counted(some, name, nearly)}</p>{shown}</div>'
    return f'<section class="ba-group"><h3>{escape(title)}</h3><div class="ba-split">{halves}</div></section>'


def counted(some: pd.DataFrame, name: str, nearly: int) -> str:
    """Return how many concepts a group has, how many of them are certain, and how many the margin keeps out."""
    count = f"{len(some):,} {name}"
    if len(some) and not data.current().info.published:
        count += f", {some['sure'].sum():,} with q < {LEVEL:g}"
    return count + (f" · {nearly:,} more with a margin of 0" if nearly else "")


@st.fragment
def agreement() -> None:
    """How alike models are in what they miss."""
    view = url.current("blindspots", KEYS)
    st.header("How alike the models are", anchor="agreement", divider="gray")
    controls.quantity_choice(view)
    heats, matrix = st.columns([9, 11], gap="large")
    with heats:
        show("correlation-pearson", view)
        show("correlation-spearman", view)
    with matrix:
        show("scatter-matrix", view)


view = url.current("blindspots", KEYS)
title, honest = st.columns([5, 1], vertical_alignment="bottom")
title.title("Blindspots", anchor=False)
with honest:
    controls.honest_delta(view)
spread, numbers = st.columns([11, 9], gap="large")
with spread:
    show("delta-densities", view)
with numbers:
    summary(view)
one_model()
if len(data.current().models) > 1:
    together()
    agreement()
