"""My image: what the atlas sees in an image that somebody brings, or in one of its own, and what models do with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from engine.errors import BlindspotError
from engine.figures.images import heat_sheet
from engine.figures.tables import LEVEL
from engine.samplers.inspection import Inspection, heat_map, how_alike, leading_concepts, stored_image
from pages.widgets import controls, html, session, uploads
from pages.widgets.session import View

KEYS = (*session.SETTINGS, "image", "upload", "top")
NEAREST, EXAMPLES, MEGABYTES = 8, 12, 32
# Session keys: uploads of this tab, newest last; what could not be read; files of the uploader that were looked at.
BROUGHT, REFUSED, HANDLED = "brought", "refused", "handled"
INTRODUCTION = (
    "Bring an image: which concepts does it show, where, and which of them do the models suppress? It is encoded as "
    "the atlas's own images were, kept in this app's memory for a while, and sent nowhere."
)
TYPES = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic", "jxl"]


def bring() -> None:
    """Keep the images that were just dropped, each once, and show the last of them."""
    files = {uploads.key_of(file): file for file in st.session_state["w_bring"]}
    fresh = [file for key, file in files.items() if key not in st.session_state.get(HANDLED, ())]
    st.session_state[HANDLED] = set(files)
    if not fresh:
        return  # one was taken away
    found, refused = [], []
    for file in fresh[-uploads.MOST :]:
        try:
            found.append(uploads.keep(file))
        except BlindspotError as error:
            refused.append(str(error))
    if len(fresh) > uploads.MOST:
        refused.append(
            f"Of the {len(fresh)} images the last {uploads.MOST} were read: bring at most so many at a time."
        )
    st.session_state[REFUSED] = refused
    if found:
        before = [key for key in st.session_state.get(BROUGHT, []) if key not in found]
        st.session_state[BROUGHT] = [*before, *found][-uploads.MOST :]
        session.change(upload=found[-1], image=None)


def brought(view: View) -> list[uploads.Upload]:
    """Return this tab's uploads that are still kept, and the one of the link."""
    keys = dict.fromkeys([*st.session_state.get(BROUGHT, []), *([view.upload] if view.upload else [])])
    return [found for key in keys if (found := uploads.uploads().get(key)) is not None]


def inspected(view: View) -> tuple[Inspection, dict[str, Any]] | None:
    """Look at the view's image; what is to be shown of the image itself comes with it."""
    if view.upload is not None:
        upload = uploads.uploads().get(view.upload)
        if upload is None:
            st.caption("That image is no longer kept here: bring it again.")
            return None
        with st.spinner("Looking at the image; the first one waits for the encoder to load."):
            found = uploads.uploads().inspected(atlas, upload)
        width, height = upload.size
        return found, {"src": upload.shown, "tile": upload.tile, "fit": html.fit_of_size(width, height),
                       "title": upload.name, "note": f"{width} × {height} px"}  # fmt: skip
    if view.image is None:
        return None
    row = session.image_table(atlas).loc[view.image]
    shown = html.asset(f"thumb/{view.image}.webp")
    note = f"image {view.image} of {row['source']} · {row['width']} × {row['height']} px"
    return stored_image(atlas, view.image), {"src": shown, "tile": shown, "fit": html.fit_of(view.image),
                                             "title": row["caption"] or "No caption", "note": note}  # fmt: skip


def examples() -> list[int]:
    """Return real images of the atlas, spread over them."""
    images = atlas.info.image_range("real")
    return np.linspace(images.start, images.stop - 1, min(len(images), EXAMPLES)).round().astype(int).tolist()


def across_models(concepts: list[int], view: View) -> dict[str, pd.DataFrame]:
    """Return the rows of the concepts in every model's table."""
    return {model: session.table(view, model).loc[concepts] for model in atlas.models}


def verdicts(rows: dict[str, pd.DataFrame], view: View) -> list[str]:
    """Say for every model how many of the concepts it suppresses or exaggerates significantly."""
    said = []
    for model, table in rows.items():
        sure = table["q"] < LEVEL
        low, high = int((sure & (table["delta"] < view.low)).sum()), int((sure & (table["delta"] > view.high)).sum())
        parts = [f"{count} {word}" for count, word in ((low, "suppressed"), (high, "exaggerated")) if count]
        said.append(f"{model}: {' and '.join(parts) or 'none'}")
    return said


def results(view: View, found: Inspection, shown: dict[str, Any]) -> None:
    """Show the concepts of an image with heat maps, their deltas, and the nearest images."""
    leading = leading_concepts(atlas, found.codes, view.top)
    if not leading.concepts:
        html.show("parts.note", key="nothing", text="No live concept fires in this image.")
        return
    heats = [heat_map(atlas, found.codes, concept) for concept in leading.concepts]
    sheet = heat_sheet([heat / heat.max() for heat in heats], 1.0)
    rows = across_models(leading.concepts, view)
    query = view.image if found.embedding is None else found.embedding
    likeness = how_alike(atlas, query)
    if likeness is not None and likeness.similarity < likeness.usual:
        html.show("my_image.unlike", key="unlike", likeness=likeness)
    html.show(
        "my_image.leading", key="leading", view=view, leading=leading, heat=sheet, rows=rows, level=LEVEL,
        verdicts=verdicts(rows, view), labels=session.table(view)["label"], src=shown["tile"], fit=shown["fit"],
    )  # fmt: skip
    groups = {"real": "Nearest real images"} | {model: f"Nearest images of {model}" for model in atlas.models}
    nearest = {title: atlas.nearest_images(query, source, NEAREST) for source, title in groups.items()}
    html.show("my_image.nearest", key="nearest", groups=nearest)


view, atlas = session.open_view("my_image", KEYS), session.atlas()
st.title("My image", anchor=False)
if atlas.info.published or not atlas.has_images:
    st.caption("Published statistics come without images, encoder and dictionary, so no image can be looked at.")
    st.stop()
html.show("parts.note", key="introduction", text=INTRODUCTION)
left, right = st.columns([3, 7], gap="large")
with left:
    st.file_uploader(
        "Images", TYPES, accept_multiple_files=True, key="w_bring", on_change=bring, label_visibility="collapsed",
        max_upload_size=MEGABYTES,
    )  # fmt: skip
    for sentence in st.session_state.get(REFUSED, []):
        st.error(html.plain(sentence, code=True), icon=":material/error:")
with html.explained():
    seen = inspected(view)
    with left:
        html.show("my_image.query", key="query", shown=seen[1] if seen else None, brought=brought(view), view=view)
        controls.delta_settings(view)
    with right:
        if seen is None:
            html.show("my_image.examples", key="examples", images=examples())
        else:
            results(view, *seen)
