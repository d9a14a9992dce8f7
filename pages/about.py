"""Method: every number of this app, with its formula and where it comes from; the text is ``method.md``."""

import re
from pathlib import Path

import streamlit as st

from pages.widgets import controls, html, session

SECTION = re.compile(r"^## (.+) \{#(\w+)\}$", re.MULTILINE)
TEXT = (Path(__file__).parent / "method.md").read_text(encoding="utf-8")


def estimators() -> None:
    """One formula and one reason per estimator."""
    for name, temperature in session.known().temperatures.items():
        st.markdown(f"**{controls.ESTIMATORS[name]}** (default T = {temperature:g}). {controls.WHY[name]}")
        st.latex(controls.FORMULAS[name])


def published(origin: dict) -> None:
    """For an atlas of published statistics: where they are from, what was assumed and what is missing."""
    st.header("This atlas", anchor="origin")
    st.markdown(
        "Its numbers were published by others and imported; nothing was measured here. What their files do not hold is "
        "left out, never estimated. What was assumed about them:"
    )
    html.show("about.origin", key="origin", origin=origin)


def images() -> None:
    """Per source: its images, captions and pairs, and why others were left out."""
    st.header("The images", anchor="images")
    table, info = session.image_table(session.atlas()), session.atlas().info
    rows = []
    for source in info.sources:
        own, skipped = table[table["source"] == source.name], info.left_out.get(source.name)
        rows.append(
            {
                "name": source.name, "images": len(own), "captions": int((own["caption"] != "").sum()),
                "pairs": int((own["pair"] >= 0).sum()) if source.kind == "model" else None, "skipped": source.skipped,
                "reasons": skipped, "broken": sum(n for why, n in (skipped or {}).items() if "finite" in why),
            }
        )  # fmt: skip
    html.show("about.images", key="images", rows=rows)


def composition() -> str:
    """What a row of Z is in this atlas."""
    atlas = session.atlas()
    if not atlas.has("composition"):
        return ""
    return f"In this atlas it is {'an image' if atlas.info.composed == 'images' else 'a token'}."


session.open_view("about", session.SETTINGS)
introduction, *sections = SECTION.split(TEXT)
_, middle, _ = st.columns([1, 4, 1])
with middle:
    st.title("Method", anchor=False)
    st.markdown(introduction)
    if (origin := session.atlas().info.origin) is not None:
        published(origin)
    if session.atlas().has_images:
        images()
    for title, anchor, text in zip(*(sections[part::3] for part in range(3)), strict=True):
        st.header(title, anchor=anchor)
        if anchor == "delta":
            estimators()
        text = text.replace("THIS_COMPOSITION", composition())
        for place, part in enumerate(text.split("$$")):
            if part.strip():
                (st.latex if place % 2 else st.markdown)(part.strip())
