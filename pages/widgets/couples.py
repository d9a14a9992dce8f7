"""Pairs of a real image and what a model drew from its caption: as tiles, and one of them in detail."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from engine.blindspots.divergence import Leading
from engine.figures.images import heat_sheet
from pages.exhibits.images import Pair
from pages.widgets import card, data, markup, tiles
from pages.widgets.live import asset, link
from pages.widgets.state import View

OWN = '<span class="ba-picture ba-none"><i>the same</i></span>'
LEADS = 6
"""Leading concepts of one image that are listed."""
PARTS = 8
"""Concepts of a pair that are shown with heat maps."""


def couple_tile(pair: int, row: pd.Series, *, chosen: bool, nearest: bool) -> str:
    """Return a pair as thumbnails that open its details.

    Parameters
    ----------
    pair, row
        A row of `pages.exhibits.images.pairs_of`.
    chosen
        Whether its details are shown.
    nearest
        Whether to add the most similar real image and what speaks for a copy.
    """
    pictures = tiles.picture_of(int(row["real_image"]), "real") + tiles.picture_of(int(row["image"]), "drawn")
    lines = [f"divergence {row['l2']:.2f}"]
    if nearest:
        own = row["nearest_real"] == row["real_image"]
        pictures += OWN if own else tiles.picture_of(int(row["nearest_real"]), "nearest real")
        lines[0] += f" · cosine {row['nearest_real_similarity']:.3f}"
        lines.append(tiles.probability(row["p"]))
    small = "".join(f"<small>{escape(line)}</small>" for line in lines)
    text = escape(row["caption"] or "No caption")
    inner = f'<span class="ba-trio">{pictures}</span>{small}<p class="ba-note">{text}</p>'
    css = "ba-tile ba-chosen" if chosen else "ba-tile"
    return link({"image": int(row["image"])}, inner, css=css, title=f"Pair {pair}: show its concepts")


def couples(rows: pd.DataFrame, chosen: int, *, nearest: bool) -> str:
    """Return pairs as a grid of tiles."""
    inner = "".join(
        couple_tile(int(pair), row, chosen=pair == chosen, nearest=nearest) for pair, row in rows.iterrows()
    )
    return f'<div class="ba-couples">{inner}</div>'


def pair_html(view: View, pair: Pair, table: pd.DataFrame) -> str:
    """Return one pair in detail: both images, its numbers, and its leading concepts with heat maps on both.

    Parameters
    ----------
    table
        The model's concept table.
    """
    row = pair.row
    shown = [("real", row["real_image"]), (view.model, row["image"])]
    if row["nearest_real"] != row["real_image"]:
        shown.append((f"nearest real, cosine {row['nearest_real_similarity']:.3f}", row["nearest_real"]))
    large = "".join(
        f"<figure>{tiles.picture_of(int(image), name)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, image in shown
    )
    facts = {
        "divergence (l2)": f"{row['l2']:.2f}",
        "mean delta": f"{row['mean_delta']:.3f}",
        "cosine to the nearest real": f"{row['nearest_real_similarity']:.3f}",
        "conformal p": markup.number(row["p"]),
    }
    numbers = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts.items())
    leads = leads_html("Leads in real", pair.leading.real, view, table)
    leads += leads_html("Leads in drawn", pair.leading.model, view, table)
    return (
        f'<div class="ba-kicker" data-arrive="{pair.number}">Pair {pair.number}</div>'
        f"<h2>{escape(row['caption'] or 'No caption')}</h2>"
        f'<section class="ba-image"><div class="ba-large">{large}</div></section><div class="ba-facts">{numbers}</div>'
        f"{parts_html(view, pair, table)}<section>{leads}</section>"
    )


def leads_html(title: str, leading: Leading, view: View, table: pd.DataFrame) -> str:
    """Return the leading concepts of one image as chips."""
    chips = (
        card.chip(int(concept), table, page="concept_map", model=view.model) for concept in leading.concepts[:LEADS]
    )
    return f'<div class="ba-near"><span>{title}</span><div>{"".join(chips)}</div></div>'


def parts_html(view: View, pair: Pair, table: pd.DataFrame) -> str:
    """Return the concepts in which a pair differs most, each with its heat map on the real and on the drawn image."""
    changed, sides = pair.leading.changed, (int(pair.row["real_image"]), int(pair.row["image"]))
    concepts = [int(concept) for concept in changed.concepts[:PARTS]]
    heats = [heat for concept in concepts for heat in _heats(concept, sides)]
    inner = ""
    for place, concept in enumerate(concepts):
        pictures = "".join(
            markup.picture(asset(f"thumb/{image}.webp"), card.fit_of(image), (2 * place + side, len(heats)), name)
            for side, (image, name) in enumerate(zip(sides, ("real", "drawn"), strict=True))
        )
        name = markup.name_of(concept, table["label"].at[concept])
        energies = f"{changed.real[place]:.2f} → {changed.model[place]:.2f}"
        tile = (
            f'<span class="ba-trio">{pictures}</span><b>{name}</b>'
            f"<small>{markup.dot(table['delta'].at[concept])} {energies}</small>"
        )
        go = {"model": view.model, "concept": concept, "image": sides[1]}
        inner += link(go, tile, css="ba-tile", page="concept_map", title=f"Concept {concept}: open its card")
    how = "Left real, right drawn, on one scale per concept. Energy real → drawn. Dot: δ over all images."
    return (
        f'{card.slider()}<section style="--sheet:url({heat_sheet(heats, 1.0)})">'
        f'<h3>What differs most</h3><p class="ba-note">{how}</p><div class="ba-parts">{inner}</div></section>'
    )


def _heats(concept: int, images: tuple[int, int]) -> list[np.ndarray]:
    """Return a concept's heat maps on both images, as shares of the stronger one's peak."""
    heats = [np.asarray(data.current().heatmap(image, concept)) for image in images]
    peak = max(float(heat.max()) for heat in heats)
    return [heat / peak if peak > 0 else heat for heat in heats]
