"""Stars and notes on the card, and selections that are kept under a name; all people of this server share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode

import numpy as np
import streamlit as st

from engine.atlas.notes import LONGEST_NAME, LONGEST_NOTE, ConceptNote, Notes
from engine.errors import BlindspotError
from engine.reports.selection import is_narrowed, pack_concepts
from pages.widgets import html, session
from pages.widgets.session import NARROWING, View

SAID = "notes_said"
"""Session key: why the last change was not made."""
KEPT = (*NARROWING, "model")
"""What a kept selection remembers."""


def notes() -> Notes:
    """The notes of this process's atlas."""
    return Notes(session.atlas_path())


def show_concept(view: View) -> None:
    """Show a concept's star and its note, both to be changed."""
    concept = view.concept or 0
    noted = notes().concept(concept)
    with st.container(key="notes", horizontal=True):
        st.button(
            "Starred" if noted.starred else "Star", on_click=_change, args=(concept, not noted.starred, noted.note),
            icon=":material/star:" if noted.starred else ":material/star_border:", key=f"w_star_{concept}",
        )  # fmt: skip
        with st.popover("Note" if noted.note else "Add a note", icon=":material/edit_note:"):
            key = f"w_note_{concept}"
            with st.form(f"note_{concept}", border=False):
                st.text_area("What you saw", noted.note, max_chars=LONGEST_NOTE, key=key)
                st.form_submit_button("Save", on_click=_save, args=(concept, noted.starred, key))
    _say()
    if noted.note:
        html.show("parts.quoted", key="noted", text=noted.note)


def show_selections(view: View) -> None:
    """Offer to keep the view's selection under a name, and the selections that are kept."""
    kept, starred = notes().selections(), notes().starred()
    starred = [concept for concept in starred if concept < session.atlas().count]
    with st.popover("Kept selections", icon=":material/bookmark:", key="w_kept"):
        if is_narrowed(view):
            with st.form("keep", clear_on_submit=True, border=False):
                st.text_input("Keep this selection as", max_chars=LONGEST_NAME, key="w_keep_name")
                st.form_submit_button("Keep", on_click=_keep, args=(view,))
        elif not (kept or starred):
            st.caption("Narrow the concepts by words, filters or a lasso to keep them under a name, or star some.")
        if starred:
            st.button(f"Starred ({len(starred)})", on_click=_open, args=(_of_concepts(starred),), key="w_starred",
                      icon=":material/star:")  # fmt: skip
        for place, (name, query) in enumerate(kept.items()):
            with st.container(horizontal=True):
                st.button(html.plain(name), on_click=_open, args=(query,), key=f"w_open_{place}")
                st.button("Forget", on_click=_drop, args=(name,), type="tertiary", key=f"w_drop_{place}",
                          icon=":material/close:")  # fmt: skip
        _say()


def _of_concepts(concepts: list[int]) -> str:
    mask = np.zeros(session.atlas().count, bool)
    mask[concepts] = True
    return urlencode({"ids": pack_concepts(mask)})


def _change(concept: int, starred: bool, note: str) -> None:
    with _said():
        notes().write(concept, ConceptNote(starred, note.strip()))


def _save(concept: int, starred: bool, key: str) -> None:
    _change(concept, starred, st.session_state[key])


def _keep(view: View) -> None:
    with _said():
        notes().keep(st.session_state["w_keep_name"], urlencode(session.write(view, session.known(), KEPT)))


def _drop(name: str) -> None:
    with _said():
        notes().drop(name)


def _open(query: str) -> None:
    found = {name: text for name, text in parse_qsl(query) if name in KEPT}
    session.follow({name: None for name in NARROWING} | found)


@contextmanager
def _said() -> Iterator[None]:
    """Remember why a change was not made, for the next run to say."""
    st.session_state.pop(SAID, None)
    try:
        yield
    except BlindspotError as error:
        st.session_state[SAID] = str(error)


def _say() -> None:
    if SAID in st.session_state:
        st.error(html.plain(st.session_state[SAID], code=True), icon=":material/error:")
