"""The concept card: what a concept is, and what each model does with it. Facts are gathered, then turned into HTML."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from engine.atlas import Atlas
from engine.figures.images import heat_sheet
from pages.widgets import data, linked, markup
from pages.widgets.live import link
from pages.widgets.markup import Fit
from pages.widgets.state import View

SHOWN = 8
"""Exemplars per row of the card."""
NEIGHBOUR_KINDS = {"cooccurrence": "Fires together with", "atom": "Looks alike (atom)", "map": "Near on the map"}


@dataclass(frozen=True)
class Couple:
    """An exemplar and the image that another source has for the same caption."""

    image: int
    other: int | None


@dataclass(frozen=True)
class Sheet:
    """One row of exemplars, each with its counterpart, and one heat-map sheet for all of them."""

    source: str
    other: str
    couples: tuple[Couple, ...]
    tiles: dict[int, int]
    """Image -> its tile in the sheet."""
    heat: str
    """PNG as a data URI, tiles in a column."""


def gather_sheet(atlas: Atlas, concept: int, source: str, other: str, peak: float | None = None) -> tuple[Sheet, float]:
    """Collect a source's exemplars of a concept and their counterparts, with heat maps.

    Parameters
    ----------
    peak
        Code drawn at full strength; by default the strongest in this row.

    Returns
    -------
    The sheet and the peak it used.
    """
    images = [int(image) for image in atlas.exemplars(source, concept, SHOWN)["image"]]
    couples = tuple(Couple(image, atlas.counterparts(image).get(other)) for image in images)
    shown = list(dict.fromkeys(i for couple in couples for i in (couple.image, couple.other) if i is not None))
    heats = [np.asarray(atlas.heatmap(image, concept)) for image in shown]
    if peak is None:
        peak = max((float(heat.max()) for heat in heats), default=0.0)
    return Sheet(source, other, couples, {image: i for i, image in enumerate(shown)}, heat_sheet(heats, peak)), peak


def inlined(image: int) -> str:
    """Return a thumbnail as a data URI: a card arrives whole, in one message, instead of asking for thirty files."""
    return "data:image/webp;base64," + base64.b64encode(data.current().thumb_bytes(image)).decode("ascii")


def fit_of(image: int) -> Fit:
    """Return how the atlas's encoder saw an image."""
    row = data.image_table(data.atlas_path()).loc[image]
    encoder = data.current().info.encoder
    crop = float(encoder.get("crop_fraction", 0.875)) if encoder.get("resize") == "crop" else None
    return Fit(aspect=row["width"] / row["height"] if row["height"] else 1.0, crop=crop)


def card_html(view: View, table: pd.DataFrame) -> str:
    """Return the card of the view's concept: heading, images with heat maps, image details, neighbours."""
    atlas, concept = data.current(), view.concept
    if not atlas.has_images:
        return heading(view, table)
    real, peak = gather_sheet(atlas, concept, "real", view.model)
    model, _ = gather_sheet(atlas, concept, view.model, "real", peak or None)
    parts = [heading(view, table)]
    if view.image is not None:
        parts.append(image_html(atlas, view, peak))
    parts += [
        slider(),
        sheet_html(atlas, real, "Real images that show it most", view),
        sheet_html(atlas, model, f"What {view.model} draws for it most", view),
    ]
    return "".join(parts)


def heading(view: View, table: pd.DataFrame) -> str:
    """Return the concept's name, its delta in this model, its words and its numbers."""
    row = table.loc[view.concept]
    label, words = row["label"], list(row["words"]) if row["words"] is not None else []
    dead = '<p class="ba-note">This concept never fires on the real images: it is dead and not on the map.</p>'
    facts = {
        "of real images": markup.percent(row["frequency"]),
        "energy real": markup.number(row["energy_real"]),
        f"energy {view.model}": markup.number(row["energy_model"]),
        "relative": f"{row['relative']:+.2f}",
        "q": markup.number(row["q"]),
        "cluster": str(int(row["cluster"])),
    }
    if data.current().info.published:
        facts = linked.facts(view, row)
        dead = f'<p class="ba-note">{linked.DEAD}</p>'
    numbers = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts.items())
    close = link({"concept": None, "image": None, "job": None}, "×", css="ba-close", title="Close this concept")
    return (
        f'<div class="ba-head">{close}<div class="ba-kicker">Concept {view.concept}</div>'
        f"<h2>{escape(markup.title_of(view.concept, label))}</h2>"
        f"<div>{markup.badge(row['delta'], view.low, view.high)} {markup.tags(words[:6])}</div></div>"
        f'<div class="ba-facts">{numbers}</div>{dead if row["dead"] else ""}'
    )


def slider() -> str:
    """Return the heat-map opacity slider, which works in the browser alone."""
    return (
        '<label class="ba-slider"><span>Heat map</span>'
        '<input type="range" min="0" max="1" step="0.05" data-heat aria-label="Heat-map opacity"></label>'
    )


def sheet_html(atlas: Atlas, sheet: Sheet, title: str, view: View) -> str:
    """Return a row of exemplars, each above the other source's image for the same caption."""
    if not sheet.couples:
        nothing = f'<p class="ba-note">No image of {escape(sheet.source)} shows it.</p>'
        return f"<section><h3>{escape(title)}</h3>{nothing}</section>"
    paired = any(couple.other is not None for couple in sheet.couples)
    what = f"top: {sheet.source}, below: {sheet.other} for the same caption" if paired else "these images have no pairs"
    tiles = "".join(
        f'<div class="ba-couple">{_tile(atlas, sheet, couple.image, view)}'
        f"{_tile(atlas, sheet, couple.other, view) if paired else ''}</div>"
        for couple in sheet.couples
    )
    return (
        f'<section style="--sheet:url({sheet.heat})"><h3>{escape(title)} <small>{escape(what)}</small></h3>'
        f'<div class="ba-sheet">{tiles}</div></section>'
    )


def _tile(atlas: Atlas, sheet: Sheet, image: int | None, view: View) -> str:
    if image is None:
        return '<span class="ba-picture ba-none" title="no counterpart"></span>'
    caption = atlas.caption(image)
    heat = sheet.tiles[image], len(sheet.tiles)
    inner = markup.picture(inlined(image), fit_of(image), heat, caption or f"image {image}")
    chosen = " ba-chosen" if image == view.image else ""
    return link({"image": image}, inner, css=f"ba-tile{chosen}", title=caption)


def image_html(atlas: Atlas, view: View, peak: float) -> str:
    """Return the details of the view's image: large, its caption and file, its counterparts, similar real images."""
    image = view.image
    row = data.image_table(data.atlas_path()).loc[image]
    others = {row["source"]: image, **atlas.counterparts(image)}
    heat = heat_sheet([np.asarray(atlas.heatmap(i, view.concept)) for i in others.values()], peak)
    large = ""
    for tile, (source, i) in enumerate(others.items()):
        shown = markup.picture(inlined(i), fit_of(i), (tile, len(others)), source)
        large += f"<figure>{link({'image': i}, shown, css='ba-tile')}<figcaption>{escape(source)}</figcaption></figure>"
    close = link({"image": None}, "×", css="ba-close", title="Close this image")
    size = f"{int(row['width'])} × {int(row['height'])} px"
    origin = f"image {image} of {row['source']} · {size} · {row['file']}"
    return (
        f'<section class="ba-image" style="--sheet:url({heat})">{close}<div class="ba-large">{large}</div>'
        f"<p><b>{escape(row['caption'] or 'No caption')}</b></p>"
        f'<p class="ba-note">{escape(origin)}</p></section>'
    )


def neighbours_html(view: View, table: pd.DataFrame) -> str:
    """Return the neighbours of the view's concept as clickable chips with a picture and a delta dot."""
    atlas, rows = data.current(), []
    for kind, title in NEIGHBOUR_KINDS.items():
        others = [int(other) for other in atlas.neighbours(view.concept, kind, 6)["other"]]
        chips = "".join(chip(other, table) for other in others)
        if chips:
            rows.append(f'<div class="ba-near"><span>{escape(title)}</span><div>{chips}</div></div>')
    return f"<section><h3>Neighbours</h3>{''.join(rows)}</section>" if rows else ""


def chip(concept: int, table: pd.DataFrame, page: str | None = None, **go: str) -> str:
    """Return a concept as a chip: best real image, name, dot in the colour of its delta."""
    name = markup.name_of(concept, table["label"].at[concept])
    best = data.current().exemplars("real", concept, 1)["image"]
    image = f'<img src="{inlined(int(best.iloc[0]))}" alt="">' if len(best) else ""
    inner = f"{image}{markup.dot(table['delta'].at[concept])}{name}"
    go = {"concept": concept, "image": None, "job": None, **go}
    return link(go, inner, css="ba-chip", page=page, title=f"Concept {concept}")
