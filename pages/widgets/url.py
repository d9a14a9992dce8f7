"""Between the browser's address bar and a `View`: reading, merging changes, following links to other pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from pages.widgets import data, state
from pages.widgets.state import View

CACHE = "view_cache"
PAGE = "view_page"
LEAVE = "view_leave"


def current(page: str, keys: tuple[str, ...]) -> View:
    """Return this run's view and clean the URL.

    A page that was just entered without parameters of its own starts from what the last page showed. Where a link was
    followed to another page from inside a fragment, the whole app runs instead: only the shell changes pages.

    Parameters
    ----------
    page
        Name of the page that asks.
    keys
        The parameters this page understands; others leave the URL.
    """
    if LEAVE in st.session_state:
        st.rerun()
    known = data.known(data.atlas_path())
    params = dict(st.query_params)
    entered = st.session_state.get(PAGE) != page
    if entered and not any(name in params for name in keys):
        cached = st.session_state.get(CACHE, {})
        params = {name: cached[name] for name in state.SHARED if name in cached and name in keys}
    st.session_state[PAGE] = page
    view = state.read({name: value for name, value in params.items() if name in keys}, known)
    put(view, keys)
    return view


def put(view: View, keys: tuple[str, ...] | None = None) -> None:
    """Write a view into the URL (and the session's memory of it) if it is not there already."""
    params = state.write(view, data.known(data.atlas_path()), keys)
    if params != dict(st.query_params):
        st.query_params.from_dict(params)
    shared = {name: params[name] for name in state.SHARED if name in params}
    st.session_state[CACHE] = {**shared, **({} if keys is None else _kept(keys))}


def _kept(keys: tuple[str, ...]) -> dict[str, str]:
    """Return the remembered parameters that this page does not know and so must not forget."""
    return {name: value for name, value in st.session_state.get(CACHE, {}).items() if name not in keys}


def change(**values: Any) -> None:
    """Change some parameters of the URL; used in widget callbacks, before the page runs again."""
    known = data.known(data.atlas_path())
    put(replace(state.read(dict(st.query_params), known), **values))


def follow(go: dict[str, Any]) -> None:
    """Do what a clicked link says: change this page's view, or leave for another page."""
    page = go.pop("page", None)
    known = data.known(data.atlas_path())
    if page is not None:
        st.session_state[LEAVE] = (str(page), {name: str(value) for name, value in go.items() if value is not None})
        return
    params = {name: value for name, value in dict(st.query_params).items() if name not in go}
    params |= {name: str(value) for name, value in go.items() if value is not None}
    put(state.read(params, known))


def leave() -> tuple[str, dict[str, str]] | None:
    """Return the page that a link asked for since the last run, once."""
    return st.session_state.pop(LEAVE, None)


def bound(name: str, value: Any) -> str:
    """Set a widget's session value to the view's before it is drawn, and return its key."""
    key = f"w_{name}"
    st.session_state[key] = value
    return key
