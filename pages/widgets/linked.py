"""What the card of published statistics shows beside its delta: their numbers, and images that lie on other hosts.

An image is asked for only after the person has allowed its host, by a switch that starts off in every session.
"""

from __future__ import annotations

from html import escape

import pandas as pd
import streamlit as st

from engine.atlas.schema import web_address
from pages.widgets import data, markup, url
from pages.widgets.live import live
from pages.widgets.state import View

ALLOWED = "linked_allowed"
"""Session key: whether linked images may be loaded."""
DEAD = "This concept is dead, or its numbers were not published: it is not on the map."
NONE = "No image is linked to this concept."
NO_LINKS = "No images were linked when these statistics were imported."


def facts(view: View, row: pd.Series) -> dict[str, str]:
    """Return the published numbers of the view's concept by name, and a dash for what was not published."""
    found = {
        "energy real": markup.number(row["energy_real"]),
        f"energy {view.model}": markup.number(row["energy_model"]),
        "gap": markup.number(row["gap"]),
        "relative": f"{row['relative']:+.2f}",
    }
    numbers = data.current().published()
    if numbers is not None:
        other = numbers.loc[view.concept]
        found["nb_fire"] = f"{other['fires']:,.0f}" if pd.notna(other["fires"]) else "–"
        if pd.notna(other["energy"]):
            found["energy, as published"] = markup.number(other["energy"])
    return {**found, "q, interval": "not published"}


def images(view: View) -> None:
    """Show the switch that names the hosts and, once it is on, the best real image and the model's best one."""
    atlas = data.current()
    st.subheader("Images", anchor=False)
    if not atlas.link_hosts:
        st.caption(NO_LINKS)
        return
    hosts = " and ".join(atlas.link_hosts)
    st.toggle(
        f"Load images from {hosts}",
        key=url.bound("linked", st.session_state.get(ALLOWED, False)),
        on_change=lambda: st.session_state.update({ALLOWED: st.session_state["w_linked"]}),
        help="They are not part of this atlas. While this is off, nothing is asked of that host; while on, it sees "
        "your address and which images you look at.",
    )
    if st.session_state.get(ALLOWED, False):
        live(gallery(view), key="linked_images")


def gallery(view: View) -> str:
    """Return the best real and the model's best image of the view's concept, each above the other one of its pair."""
    titles = {"real": "Real image that shows it most", view.model: f"What {view.model} draws for it most"}
    columns = ""
    for source, title in titles.items():
        other = view.model if source == "real" else "real"
        pair = _figure(source, source, title, view) + _figure(other, source, f"{other}, same caption", view)
        columns += f"<div>{pair}</div>"
    return f'<div class="ba-linked">{columns}</div>' if "<img" in columns else f'<p class="ba-note">{NONE}</p>'


def _figure(source: str, of: str, title: str, view: View) -> str:
    """Return the image of `source` that belongs to the best image of the source `of`; empty when there is none."""
    links = data.current().links(source, view.concept)
    return "".join(
        f'<figure><img src="{escape(address)}" alt="{escape(title)}" loading="lazy" referrerpolicy="no-referrer">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for address in links["url"][links["of"] == of]
        if web_address(address)
    )
