"""Generate: choose a concept, draw it by any method, and compare what was drawn; the form is the concept card's."""

import streamlit as st

from engine.atlas.schema import REAL
from engine.reports.selection import is_narrowed, ordered
from pages.widgets import controls, drawings, generate, html, jobs, selection, session

KEYS = (*session.SETTINGS, "concept", "job", "draw", "beside", *session.NARROWING)
OFFERED = 12  # concepts to choose from; a string below it would show on the page
BEST = 8


@html.fragment
def studio() -> None:
    """The chosen concept with its best real images, the form and its results; or concepts to choose from."""
    view = session.open_view("generate", KEYS)
    search, model = st.columns([3, 4], vertical_alignment="bottom")
    with search:
        controls.search_box(view)
    with model:
        controls.model_choice(view)
    if view.text or view.concept is None:
        choices(view)
    if view.concept is None:
        if not drawings.show_earlier(jobs.queue(), view, every=True):
            html.show("generate.none_yet", key="none", view=view)
        drawings.show_stored(view)
        return
    left, right = st.columns([3, 7], gap="large")
    with left:
        row = session.table(view).loc[view.concept]
        images = [int(image) for image in session.atlas().exemplars(REAL, view.concept, BEST)["image"]]
        html.show("generate.subject", key="subject", view=view, row=row, images=images)
    with right:
        generate.generate(view, titled=False)


def choices(view: session.View) -> None:
    """Concepts of the selection, those that differ most first."""
    found = ordered(session.atlas(), view)
    table = session.table(view)
    html.show("generate.choices", key="choices", view=view, concepts=[int(one) for one in found[:OFFERED]],
              total=len(found), narrowed=is_narrowed(view), table=table, chips=selection.chips(view))  # fmt: skip


st.title("Generate", anchor=False)
if not session.atlas().has_images:
    st.caption("Published statistics come without images, encoder and dictionary, so nothing can be drawn.")
else:
    studio()
