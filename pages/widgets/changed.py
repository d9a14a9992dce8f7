"""Pairs of concepts that a model combines differently than reality, as pictures with their counts."""

from __future__ import annotations

import math
from html import escape

import pandas as pd

from engine.figures.style import EXAGGERATED, SUPPRESSED
from pages.widgets import lists, markup, tiles
from pages.widgets.live import link


def changed_pair(row: pd.Series, model: str) -> str:
    """Return one pair of concepts, each leading to its card, with cosines, counts, ratio and adjusted p.

    Parameters
    ----------
    row
        A row of `pages.exhibits.composition.changed_pairs`.
    model
        The model whose cards open.
    """
    more = row["model"] > row["real"]
    pictures = "".join(
        _concept(int(row[side]), row[f"{side}_label"], model, model if more else "real") for side in ("first", "second")
    )
    dot = f'<i class="ba-dot" style="background:{EXAGGERATED if more else SUPPRESSED}"></i>'
    ratio = f"× {row['ratio']:.2g}" if math.isfinite(row["ratio"]) else "new"
    tokens = f"{row['real_tokens']:,} → {row['model_tokens']:,} tokens"
    images = f"{row['real_images']:,} → {row['model_images']:,} images"
    return (
        f'<div><span class="ba-trio">{pictures}</span>'
        f"<small>{dot} cosine {row['real']:.2f} → {row['model']:.2f} · {ratio}</small>"
        f"<small>{tokens}</small><small>{images}</small>"
        f"<small>{escape(tiles.probability(row['p_adjusted']))} adjusted</small></div>"
    )


def _concept(concept: int, label: str, model: str, source: str) -> str:
    name = markup.title_of(concept, label)
    inner = f"{tiles.picture_of(lists.best_image(concept, source), name)}<b>{markup.name_of(concept, label)}</b>"
    return link(
        {"model": model, "concept": concept}, inner, css="ba-tile", page="concept_map", title=f"Concept {concept}"
    )


def changed_list(rows: pd.DataFrame, model: str) -> str:
    """Return pairs of concepts as a grid."""
    return f'<div class="ba-changes">{"".join(changed_pair(row, model) for _, row in rows.iterrows())}</div>'
