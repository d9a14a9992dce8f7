"""Lists of concepts as image cards, and the legend under the map."""

from __future__ import annotations

import math
from html import escape

import pandas as pd

from engine.figures.style import EXAGGERATED, NEUTRAL, SUPPRESSED
from engine.figures.tables import LEVEL, Summary
from pages.widgets import card, data, markup
from pages.widgets.live import asset, link
from pages.widgets.state import View

CERTAIN_FIRST = f"Concepts with q < {LEVEL:g} come first; the δ of the others may be chance."


def origin(side: str, model: str) -> str:
    """Return, for a heading, whose images stand for the concepts of one side."""
    whose = f"drawn by {model}" if side == "exaggerated" else "real images"
    return f"<small>{escape(whose)}</small>" if data.current().has_images else ""


def concept_card(concept: int, row: pd.Series, model: str, image: int | None, page: str | None = None) -> str:
    """Return one concept as a picture with its name and delta, linked to its card."""
    name, title = markup.name_of(concept, row["label"]), markup.title_of(concept, row["label"])
    inside = f'<div style="background:{NEUTRAL}"></div>' if data.current().has_images else ""
    if image is not None:
        inside = markup.picture(asset(f"thumb/{image}.webp"), card.fit_of(image), alt=title)
    words = ", ".join(list(row["words"])[:3]) if row["words"] is not None else ""
    frequency = f" · {markup.percent(row['frequency'])}" if math.isfinite(row["frequency"]) else ""
    doubt = f"<small>q = {row['q']:.2g}</small>" if row["q"] >= LEVEL else ""
    delta = f"<small>{markup.dot(row['delta'])} δ {row['delta']:.2f}{frequency}</small>"
    inner = f"{inside}<b>{name}</b>{delta}{doubt}"
    go = {"model": model, "concept": concept, "image": None, "job": None}
    return link(go, inner, css="ba-card ba-tile", page=page, title=f"Concept {concept}: {words}")


def best_image(concept: int, source: str) -> int | None:
    """Return the image that shows a concept most: the source's own, else a real one, if any does."""
    for name in dict.fromkeys((source, "real")):
        images = data.current().exemplars(name, concept, 1)["image"]
        if len(images):
            return int(images.iloc[0])
    return None


def cards(rows: pd.DataFrame, model: str, *, side: str, page: str | None = None) -> str:
    """Return concepts as image cards: what reality shows for suppressed ones, what the model draws for exaggerated."""
    source = model if side == "exaggerated" else "real"
    return "".join(
        concept_card(int(concept), row, model, best_image(int(concept), source), page)
        for concept, row in rows.iterrows()
    )


def found(rows: pd.DataFrame, view: View) -> str:
    """Return the concepts that a search found."""
    if rows.empty:
        return '<p class="ba-note">No live concept has this word, label or id: try another word.</p>'
    return f'<div class="ba-list">{cards(rows, view.model, side="both")}</div>'


def grid(rows: pd.DataFrame, view: View) -> str:
    """Return the list of top differences with its 'more' link."""
    if rows.empty:
        return '<p class="ba-note">No concept passes these filters: loosen them.</p>'
    shown = "the model's own images" if view.side == "exaggerated" else "real images"
    what = f"pictures are {shown}" if data.current().has_images else "pictures were not published with them"
    first = "" if data.current().info.published else f" {CERTAIN_FIRST}"
    more = ""
    if len(rows) == view.top and view.top < 96:
        more = f"<p>{link({'top': min(96, view.top + 24)}, 'Show more', css='ba-chip ba-more')}</p>"
    return (
        f'<p class="ba-note">{len(rows)} live concepts with the most extreme δ; {what}.{first} '
        f'Click one, or a dot on the map.</p><div class="ba-list">{cards(rows, view.model, side=view.side)}</div>{more}'
    )


def legend(view: View, basis: str, how: str, kept: int) -> str:
    """Return the words under the map: what colour means, the thresholds, the estimator and how to read it."""
    swatches = (
        (SUPPRESSED, f"suppressed, δ < {view.low:g}"),
        (NEUTRAL, "as real, δ = 0.5"),
        (EXAGGERATED, f"exaggerated, δ > {view.high:g}"),
    )
    marks = "".join(f'<span><i class="ba-dot" style="background:{ink}"></i> {text}</span>' for ink, text in swatches)
    return (
        f'<div class="ba-legend">{marks if view.colour == "delta" else ""}</div>'
        f'<p class="ba-note">{kept:,} concepts shown · δ by {escape(basis)}. {escape(how)}</p>'
    )


def strip(summary: Summary, basis: str, how: str) -> str:
    """Return one model's numbers in a row."""
    numbers = (
        (f"{summary.suppressed:,}", "suppressed"),
        (f"{summary.exaggerated:,}", "exaggerated"),
        *([] if summary.significant is None else [(f"{summary.significant:,}", "differ at q < 0.05")]),
        (f"{summary.median:.2f}", "median δ"),
        (f"{summary.skewness:+.1f}", "skewness"),
    )
    inner = "".join(f"<span><b>{value}</b> {name}</span>" for value, name in numbers)
    note = f"of {summary.concepts:,} live concepts · {escape(basis)}"
    return f'<div class="ba-strip">{inner}</div><p class="ba-note">{note}</p><p class="ba-note">{escape(how)}</p>'
