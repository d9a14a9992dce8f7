"""Rating studies beside the atlas, and the component (``ratings.js``) in which a person rates one item.

Nothing here hands a method, a model or a concept's number to the browser; what a study found is shown by the page, once
the study has ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from engine.errors import BlindspotError
from engine.ratings.report import RatingReport, rating_report
from engine.ratings.store import NAME, SUFFIX, RatingStudy, studies_folder
from pages.widgets import html, session

PLACE = "rating_place"
"""Session key: the item that a person went back to."""
LONGEST_VISIT = 3600.0
"""Seconds for an item above which nobody can have looked at it all the time."""

_component = st.components.v2.component(
    "blindspot_rating",
    html='<div class="ba-live ba-rating"></div>',
    js=(Path(__file__).parent / "ratings.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def open_study(name: str) -> RatingStudy:
    """Return a study beside the atlas; raises `BlindspotError` if there is none of this name."""
    if not NAME.fullmatch(name):
        raise BlindspotError("There is no such rating study.")
    return RatingStudy.open(studies_folder(session.atlas_path()) / f"{name}{SUFFIX}")


def found(study: RatingStudy) -> RatingReport:
    """Return what an ended study found; nothing is rated in it any more, so this is worked out once."""
    return _found(study.path, study.token)


@lru_cache(maxsize=8)
def _found(path: Path, token: str) -> RatingReport:
    return rating_report(RatingStudy.open(path))


def image(study: RatingStudy, token: str) -> str:
    """Return the address of an item's image."""
    return html.asset(f"ratings/{study.name}/{token}.webp")


def rate(study: RatingStudy, rater: str, order: list[str], rated: set[str]) -> None:
    """Show the item that a rater went back to or has not rated yet, and store what they say of it."""
    waiting = [token for token in order if token not in rated]
    place = st.session_state.get(PLACE)
    token = place if place in rated else waiting[0]
    before = [one for one in order[: order.index(token)] if one in rated]
    following = next((one for one in waiting if one != token), None)

    def store() -> None:
        said = st.session_state["rating"].get("rating")
        if isinstance(said, Mapping):
            st.session_state.pop(PLACE, None)
            try:
                study.rate(rater, str(said.get("token")), said.get("value"), said.get("note"), _seconds(said))
            except (BlindspotError, LookupError) as error:
                st.toast(html.plain(error or "There is no such item."), icon=":material/error:")

    def back() -> None:
        if before and st.session_state["rating"].get("back"):
            st.session_state[PLACE] = before[-1]

    shown = study.show(token, rater)
    page = html.render(
        "ratings.item", study=study, shown=shown, src=image(study, token), number=len(rated) + (token not in rated),
        total=len(order), rater=rater, again=token in rated, back=bool(before),
    )  # fmt: skip
    ahead = image(study, following) if following else None
    data = {"html": page, "token": token, "ahead": ahead}
    _component(key="rating", data=data, on_rating_change=store, on_back_change=back)


def _seconds(said: Mapping[str, Any]) -> float | None:
    """How long a person looked, as the browser says."""
    value = said.get("seconds")
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return min(float(value), LONGEST_VISIT) if numeric and value >= 0 else None
