"""One calm sentence for a link that asks for what the atlas does not have: what it asked for, and what is shown."""

from __future__ import annotations

from html import escape

import streamlit as st

from pages.widgets import data, state
from pages.widgets.live import live

LONGEST = 40
"""Characters of a wrong value that are repeated."""
NAMES = {
    "temperature": "temperature T", "low": "lower threshold", "high": "upper threshold", "q": "limit of q",
    "text": "search text", "side": "side of the list", "top": "length of the list", "target": "mean score",
}  # fmt: skip
"""What a person calls a parameter, where that is not its name."""


def show() -> None:
    """Say it at the top of the page; a link that fits says nothing."""
    params, known = dict(st.query_params), data.known(data.atlas_path())
    wrong = state.misfits(params, known)
    if wrong:
        live(f'<p class="ba-notice" role="status">{sentence(wrong, state.read(params, known))}</p>', key="notice")


def sentence(wrong: dict[str, str], view: state.View) -> str:
    """Return the sentence as HTML.

    Parameters
    ----------
    wrong
        Parameters that do not fit, and what the link says.
    view
        What is shown instead.
    """
    asked = [f"{NAMES.get(name, name)} <b>{escape(_short(text))}</b>" for name, text in wrong.items()]
    shown = [_shown(name, getattr(view, name)) for name in wrong]
    return f"This link asks for {_listed(asked)}, which this atlas cannot show: you see {_listed(shown)} instead."


def _shown(name: str, value: object) -> str:
    called = NAMES.get(name, name)
    if value is None or value in ((), ""):
        return f"no chosen {called}" if name in ("concept", "image", "job") else f"every {called}"
    text = ", ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{called} <b>{escape(text)}</b>"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
