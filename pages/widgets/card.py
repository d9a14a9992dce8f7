"""The concept card: what a concept is, its images with heat maps, its deltas in every model, and its neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from engine.atlas.schema import web_address
from engine.blindspots.label_scores import label_sentence
from engine.figures.distribution import delta_intervals
from engine.figures.images import heat_sheet
from engine.reports.citation import cite_concept
from engine.samplers.recognition import concept_label, fooling_sentence
from pages.widgets import html, selection, session
from pages.widgets.plot import show_figure
from pages.widgets.session import View

SHOWN = 8
"""Exemplars per row of the card."""
NEIGHBOURS = 6
KINDS = {"cooccurrence": "Fires together with", "atom": "Looks alike (atom)", "map": "Near on the map"}
ALLOWED = "linked_allowed"
"""Session key: whether images on other hosts may be loaded."""


class Exemplars(NamedTuple):
    """A row of exemplars with one heat-map sheet for all of them."""

    title: str
    source: str
    other: str
    columns: list[tuple[int | None, ...]]
    """Each an image, and the other source's image for the same caption if any of them has one."""
    tiles: list[int]
    """The images in the order of the sheet."""
    heat: str
    """PNG as a data URI, tiles in a column."""
    peak: float
    """The code drawn at full strength."""


class ImageDetails(NamedTuple):
    """One image and its counterparts."""

    row: pd.Series
    """Its row of the image table."""
    images: dict[str, int]
    heat: str


def show_card(view: View, table: pd.DataFrame) -> None:
    """Show the card of the view's concept above its delta in every model."""
    atlas, numbers, details, exemplars = session.atlas(), None, None, []
    if atlas.has_images:
        real = gather_exemplars(view.concept, "real", view.model, "Real images that show it most")
        drawn = gather_exemplars(view.concept, view.model, "real", f"What {view.model} draws for it most", real.peak)
        details = None if view.image is None else image_details(view, real.peak)
        exemplars = [real, drawn]
    elif (published := atlas.published()) is not None:
        numbers = published.loc[view.concept]
    row = table.loc[view.concept]
    fooling = fooling_sentence(atlas.fooling(view.concept), concept_label(atlas, [view.concept]))
    html.show(
        "card.card", key="card", view=view, row=row, numbers=numbers, details=details, exemplars=exemplars,
        fooling=fooling, beside=selection.beside(view), naming=naming(view.concept),
    )  # fmt: skip
    html.show("card.cite", key="cite", found=cite_concept(atlas, view.concept, view))
    if atlas.info.published:
        linked_images(view)
    rows = pd.DataFrame({model: session.table(view, model).loc[view.concept] for model in atlas.models}).T
    show_figure(delta_intervals(rows, concept=view.concept, basis=session.basis(view)), key="forest")


def naming(concept: int) -> tuple[str, ...]:
    """Return a concept's description, and where its label comes from with its score; nothing where none was scored."""
    labels = session.atlas().concept_labels()
    if concept not in labels.index:
        return ()
    row = labels.loc[concept]
    said = label_sentence(*(row[name] for name in ("origin", "score", "score_low", "score_high", "images", "fuzzing")))
    return tuple(filter(None, (row["description"], said)))


def gather_exemplars(concept: int, source: str, other: str, title: str, peak: float = 0.0) -> Exemplars:
    """Collect a source's exemplars of a concept and their counterparts in another source, with heat maps.

    Parameters
    ----------
    peak
        Code drawn at full strength; 0 for the strongest in this row.
    """
    atlas = session.atlas()
    images = [int(image) for image in atlas.exemplars(source, concept, SHOWN)["image"]]
    pairs = [(image, atlas.counterparts(image).get(other)) for image in images]
    tiles = list(dict.fromkeys(image for pair in pairs for image in pair if image is not None))
    heats = [np.asarray(atlas.heatmap(image, concept)) for image in tiles]
    peak = peak or max((float(heat.max()) for heat in heats), default=0.0)
    columns = pairs if any(pair[1] is not None for pair in pairs) else [(image,) for image in images]
    return Exemplars(title, source, other, columns, tiles, heat_sheet(heats, peak), peak)


def image_details(view: View, peak: float) -> ImageDetails:
    """Collect the view's image and its counterparts, with heat maps."""
    atlas = session.atlas()
    row = session.image_table(session.atlas()).loc[view.image]
    images = {row["source"]: view.image, **atlas.counterparts(view.image)}
    heats = [np.asarray(atlas.heatmap(image, view.concept)) for image in images.values()]
    return ImageDetails(row, images, heat_sheet(heats, peak))


def show_neighbours(view: View, table: pd.DataFrame) -> None:
    """Show the neighbours of the view's concept."""
    atlas = session.atlas()
    found = {title: atlas.neighbours(view.concept, kind, NEIGHBOURS)["other"] for kind, title in KINDS.items()}
    groups = {title: [int(other) for other in others] for title, others in found.items() if len(others)}
    if groups:
        html.show("card.neighbours", key="neighbours", groups=groups, table=table)


def linked_images(view: View) -> None:
    """Show published images of the concept that lie on other hosts, once a switch that names the hosts is on."""
    atlas = session.atlas()
    st.subheader("Images", anchor=False)
    if not atlas.link_hosts:
        st.caption("No images were linked when these statistics were imported.")
        return
    st.toggle(
        f"Load images from {' and '.join(html.plain(host) for host in atlas.link_hosts)}",
        key=session.bound("linked", st.session_state.get(ALLOWED, False)),
        on_change=lambda: st.session_state.update({ALLOWED: st.session_state["w_linked"]}),
        help="They are not part of this atlas. While this is off, nothing is asked of that host; while on, it sees "
        "your address and which images you look at.",
    )
    if not st.session_state.get(ALLOWED, False):
        return
    titles = {"real": "Real image that shows it most", view.model: f"What {view.model} draws for it most"}
    columns = []
    for source, title in titles.items():
        other = view.model if source == "real" else "real"
        shown = ((source, title), (other, f"{other}, same caption"))
        columns.append([(url, text) for side, text in shown for url in _links(view, side, source)])
    if any(columns):
        html.show("card.linked", key="linked_images", columns=columns)
    else:
        html.show("parts.note", key="linked_images", text="No image is linked to this concept.")


def _links(view: View, source: str, best_of: str) -> list[str]:
    """Return the addresses of a source's image that belongs to the best image of `best_of`."""
    links = session.atlas().links(source, view.concept)
    return [url for url in links["url"][links["of"] == best_of] if web_address(url)]


def pair_heats(concepts: list[int], images: tuple[int, int]) -> str:
    """Return the heat maps of concepts on both images of a pair, two tiles per concept, as shares of its peak."""
    heats = []
    for concept in concepts:
        both = [np.asarray(session.atlas().heatmap(int(image), concept)) for image in images]
        peak = max(float(heat.max()) for heat in both)
        heats += [heat / peak if peak > 0 else heat for heat in both]
    return heat_sheet(heats, 1.0)
