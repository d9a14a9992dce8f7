"""Concepts as pictures with what was measured of them: rankings, universal and specific blindspots."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

import pandas as pd

from pages.widgets import card, data, lists, markup
from pages.widgets.live import asset, link


def probability(value: float, name: str = "p") -> str:
    """Write a p or q value as people do."""
    if not math.isfinite(value):
        return f"{name} –"
    return f"{name} < 0.001" if value < 0.001 else f"{name} = {value:.2g}"


def picture_of(image: int | None, alt: str = "") -> str:
    """Return an image's thumbnail, an empty frame where there is none, nothing in an atlas without images."""
    if image is None:
        return '<span class="ba-picture ba-none"></span>' if data.current().has_images else ""
    return markup.picture(asset(f"thumb/{image}.webp"), card.fit_of(image), alt=alt)


def concept_tile(concept: int, name: str, lines: Iterable[str], *, model: str, source: str) -> str:
    """Return a concept as a picture that leads to its card.

    Parameters
    ----------
    name
        Its label, if it has one.
    lines
        What stands under the name: markup, already escaped.
    model
        The model whose card opens.
    source
        Whose image to show.
    """
    title = markup.title_of(concept, name)
    small = "".join(f"<small>{line}</small>" for line in lines)
    inner = f"{picture_of(lists.best_image(concept, source), title)}<b>{markup.name_of(concept, name)}</b>{small}"
    go = {"model": model, "concept": concept}
    return link(go, inner, css="ba-card ba-tile", page="concept_map", title=f"Concept {concept}")


def ranked_tiles(rows: pd.DataFrame, model: str, side: str) -> str:
    """Return one end of a model's ranking: delta with its interval, q and frequency below each picture."""
    source = model if side == "exaggerated" else "real"
    return "".join(
        concept_tile(int(concept), row["label"], _numbers(row), model=model, source=source)
        for concept, row in rows.iterrows()
    )


def _numbers(row: pd.Series) -> list[str]:
    """Delta, and what is known beside it: an atlas of published statistics knows neither interval nor q."""
    delta = f"{markup.dot(row['delta'])} δ {row['delta']:.2f}"
    if not math.isfinite(row["q"]):
        return [delta]
    interval = f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    return [f"{delta} {interval}", f"{escape(probability(row['q'], 'q'))} · in {markup.percent(row['frequency'])}"]


def shared_tiles(rows: pd.DataFrame, models: Iterable[str], *, model: str, source: str, count: int) -> str:
    """Return the first blindspots of a group with the delta of every model; says how many more there are.

    Parameters
    ----------
    rows
        Rows of the exhibit ``shared-blindspots``: ``concept, label`` and ``delta of MODEL``.
    models
        All models.
    model, source
        As in `concept_tile`.
    count
        Tiles to show.
    """
    tiles = "".join(
        concept_tile(int(row["concept"]), row["label"],
                     ["".join(f"{markup.dot(row[f'delta of {name}'])}" for name in models)], model=model, source=source)
        for _, row in rows.head(count).iterrows()
    )  # fmt: skip
    more = f'<p class="ba-note">and {len(rows) - count:,} more, in the CSV</p>' if len(rows) > count else ""
    return f'<div class="ba-list">{tiles}</div>{more}'
