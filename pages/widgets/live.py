"""One small component for everything that is only HTML: it shows a string and reports clicks on marked elements.

An element with ``data-go='{"concept": 5}'`` reports that change of the view; the page merges it into the URL. A link to
another page is followed in the browser (``steps.js``). Sliders marked ``data-heat`` fade the heat maps there too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from pages.widgets import data, url

HERE = Path(__file__).parent

_component = st.components.v2.component(
    "blindspot_live",
    html='<div class="ba-live"></div>',
    js="\n".join((HERE / name).read_text(encoding="utf-8") for name in ("steps.js", "live.js")),
    isolate_styles=False,
)


def styles() -> None:
    """Load the style sheet of everything that is HTML; once per run, before the page."""
    st.html(HERE / "style.css")


def asset(path: str) -> str:
    """Return the address of one of the atlas's own routes (`pages.routes`), such as ``thumb/12.webp``."""
    return f"/atlas/{data.version(data.atlas_path())}/{path}"


def live(html: str, *, key: str) -> None:
    """Show HTML whose marked elements change the view.

    Parameters
    ----------
    html
        Trusted markup; everything that comes from an atlas must have gone through `html.escape`.
    key
        Name of this place on the page.
    """

    def follow() -> None:
        go = st.session_state[key].get("go")
        if isinstance(go, Mapping):
            url.follow(dict(go))

    _component(key=key, data={"html": html}, on_go_change=follow)


def link(go: Mapping[str, Any], inner: str, *, css: str = "", page: str | None = None, title: str = "") -> str:
    """Return an anchor that works as a deep link and, when clicked, changes the view without loading a page.

    Parameters
    ----------
    go
        Parameters to change (None removes one). A link to another page takes model, estimator and thresholds along.
    inner
        Markup inside the anchor, already escaped.
    page
        URL path of another page, if the link leaves this one.
    """
    payload = {**go, **({"page": page} if page else {})}
    return (
        f'<a class="{css}" href="{address(go, page)}" title="{escape(title)}" '
        f"data-go='{escape(json.dumps(payload))}'>{inner}</a>"
    )


def address(go: Mapping[str, Any], page: str | None = None) -> str:
    """Return the address of a changed view of this page, or of another page that keeps this one's settings."""
    params = {**url.settings(), **go} if page else go
    return f"{page or ''}?{urlencode({name: value for name, value in params.items() if value is not None})}"
