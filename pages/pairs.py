"""Images: how far single drawn images are from the real ones of their captions, down to the concepts of one pair."""

import streamlit as st

from engine.reports import images
from pages.widgets import controls, html, session
from pages.widgets.card import pair_heats
from pages.widgets.reports import find_report, missing, show_report

KEYS = ("model", "estimator", "temperature", "low", "high", "models", "image", "top", "caption")
PARTS = 8


@html.fragment
def post_training() -> None:
    """Two models on the same captions."""
    view = session.open_view("pairs", KEYS)
    controls.two_models_choice(images.compared_models(atlas, view), images.paired_models(atlas))
    found = images.model_comparison(atlas, view)
    show_report("post-training", view)
    html.show("pairs.post_training", key="post_training", captions=len(found.rows), found=found.found)


@html.fragment
def single_images() -> None:
    """One model's pairs: candidates for copies, failures, and the chosen pair in detail."""
    view = session.open_view("pairs", KEYS)
    st.header("Single images", anchor="images", divider="gray")
    controls.model_choice(view)
    if not atlas.info.source(view.model).paired:
        name = html.plain(view.model)
        st.info(f"{name} did not draw the captions of real images: its images have no real one to compare with.")
        return
    gallery, detail = st.columns([11, 9], gap="large")
    pair = images.image_pair(atlas, view)
    with detail, st.container(key="detail"):
        concepts, table = pair.leading.changed.concepts[:PARTS].tolist(), session.table(view)
        heat = pair_heats(concepts, (pair.row["real_image"], pair.row["image"]))
        html.show("pairs.detail", key="pair_detail", view=view, pair=pair, table=table, concepts=concepts, heat=heat)
        show_report("pair", view)
    with gallery:
        controls.caption_search(view)
        rows = images.matching_pairs(images.ranked_pairs(atlas, view.model), view.caption)
        html.show(
            "pairs.gallery", key="gallery", view=view, rows=rows, certain=images.likely_copies(rows),
            chosen=pair.number, level=images.LEVEL, count=max(3, view.top // 2), copies=find_report("copies", view),
            failures=find_report("failures", view),
        )  # fmt: skip
        show_report("copies", view)


view, atlas = session.open_view("pairs", KEYS), session.atlas()
st.title("Images", anchor=False)
if missing("divergence", view):
    st.stop()
spread, trained = st.columns(2, gap="large")
with spread:
    show_report("divergence", view)
if len(images.paired_models(atlas)) > 1:
    with trained:
        post_training()
single_images()
