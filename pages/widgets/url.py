"""Between the browser's address bar and a `View`: reading, merging changes, what an entered page remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.widgets import data, state
from pages.widgets.state import View

CACHE = "view_cache"
PAGE = "view_page"


def current(page: str, keys: tuple[str, ...]) -> View:
    """Return this run's view and clean the URL.

    A page that was just entered by the navigation bar, without parameters, starts from what the last page showed. One
    that was entered by a link or by Back shows what the URL says.

    Parameters
    ----------
    page
        Name of the page that asks.
    keys
        The parameters this page understands; others leave the URL, but what follows a person is remembered.
    """
    known = data.known(data.atlas_path())
    params = dict(st.query_params)
    cached = st.session_state.get(CACHE, {})
    if st.session_state.get(PAGE) != page and not _by_link() and not any(name in params for name in keys):
        params = {name: value for name, value in cached.items() if name in keys}
    st.session_state[PAGE] = page
    view = state.read({name: value for name, value in params.items() if name in keys}, known)
    shown = put(view, keys)
    kept = {name: value for name, value in cached.items() if name not in keys}
    st.session_state[CACHE] = {name: value for name, value in {**kept, **shown}.items() if name in state.SHARED}
    return view


def put(view: View, keys: tuple[str, ...] | None = None) -> dict[str, str]:
    """Write a view into the URL if it is not there already, and return its parameters."""
    params = state.write(view, data.known(data.atlas_path()), keys)
    if params != dict(st.query_params):
        st.query_params.from_dict(params)
    return params


def settings() -> dict[str, str]:
    """Return the settings that a link to another page takes along."""
    cached = st.session_state.get(CACHE, {})
    return {name: cached[name] for name in state.SETTINGS if name in cached}


def change(**values: Any) -> None:
    """Change some parameters of the URL; used in widget callbacks, before the page runs again."""
    known = data.known(data.atlas_path())
    put(replace(state.read(dict(st.query_params), known), **values))


def follow(go: dict[str, Any]) -> None:
    """Change this page's view as a clicked link says."""
    params = {name: value for name, value in dict(st.query_params).items() if name not in go}
    params |= {name: str(value) for name, value in go.items() if value is not None}
    put(state.read(params, data.known(data.atlas_path())))


def bound(name: str, value: Any) -> str:
    """Set a widget's session value to the view's before it is drawn, and return its key."""
    key = f"w_{name}"
    st.session_state[key] = value
    return key


def _by_link() -> bool:
    """Return whether this run was started by Back, Forward or a link of ours (``steps.js``), not by the bar."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation
