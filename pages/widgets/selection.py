"""The selection on a page: what narrows it, how many it holds, the list of its concepts, and files of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import streamlit as st

from engine.atlas import Atlas
from engine.figures.tables import LEVEL, cluster_names, summarise
from engine.reports.selection import delta_range, describe, ordered, select
from pages.widgets import html, session
from pages.widgets.reports import report_query
from pages.widgets.session import View

ROWS = 24
"""Concepts on one page of the list."""
TOOLBAR = "toolbar_view"
"""Session key: the parameters that the controls outside a page's fragment showed last."""
CONTROLLED = ("model", "text", "status", "frequency", "q", "cluster", "estimator", "temperature", "low", "high")
CELL = ["delta", "ci_low", "ci_high", "q"]
RANKINGS = {
    "clear": "Ranked by the end of the 95 % interval that is nearest to 0.5, so that noisy concepts do not lead; "
    f"those with q < {LEVEL:g} come first.",
    "range": f"Ranked by how far the δ of all models lie apart; those with q < {LEVEL:g} in any of them come first.",
    "apart": f"Ranked by how far the δ of {{models}} lie apart; those with q < {LEVEL:g} in any of them come first.",
}


class ModelCell(NamedTuple):
    """One model's numbers in a row."""

    model: str
    delta: float
    low: float
    high: float
    """95 % interval of delta."""
    q: float
    certain: bool
    """Whether q is below the level, or was not published."""


class Listed(NamedTuple):
    """One row of the list."""

    concept: int
    label: str | None
    words: str
    numbers: pd.Series
    """Its row of the concept table."""
    models: list[ModelCell]
    range: float
    """Largest minus smallest delta of these models."""
    image: str | None
    """Address of the real image that shows it most, if one does."""


def remember_controls(view: View) -> None:
    """Note what the controls outside of the page's fragment show; for `keep_controls` inside of it."""
    st.session_state[TOOLBAR] = _controlled(view)


def keep_controls(view: View) -> None:
    """Run the whole page if a fragment changed what controls outside of it show."""
    if st.session_state.get(TOOLBAR, shown := _controlled(view)) != shown:
        st.rerun()


def _controlled(view: View) -> tuple:
    return tuple(getattr(view, name) for name in CONTROLLED)


def list_heading(view: View) -> str:
    """Return what stands above the list: how many concepts it has."""
    count = int(select(session.atlas(), view).sum())
    return "The concept" if count == 1 else f"All {count:,} concepts"


def show_bar(view: View, models: Sequence[str] | None = None) -> None:
    """Show what narrows the selection, each part with a cross that removes it, how many it holds, and files of it.

    The blindspots among them are counted for the view's model unless others are named.
    """
    atlas = session.atlas()
    mask, total = select(atlas, view), int((~session.table(view)["dead"]).sum())
    counts = {
        model: summarise(session.table(view, model)[mask], view.low, view.high) for model in models or [view.model]
    }
    html.show(
        "selection.bar", key="selection", view=view, chips=chips(view), count=int(mask.sum()), counts=counts,
        total=total, query=report_query("selection", view), near=[] if mask.any() else _near(view),
    )  # fmt: skip


def chips(view: View) -> list[tuple[str, str]]:
    """Return what narrows a view's selection: the parameter, and what it says in words."""
    names = named_clusters(session.atlas()) if view.cluster else {}
    words = {"cluster": " or ".join(names.get(one, one) for one in view.cluster)}
    return [(name, words.get(name, text)) for name, text in describe(view)]


def _near(view: View) -> list[str]:
    """Return known words like the one that was searched for."""
    return session.atlas().known_words(view.text) if view.text else []


@lru_cache(maxsize=4)
def named_clusters(atlas: Atlas) -> dict[str, str]:
    """Return every cluster's number and the labels that tell it from the others."""
    names = cluster_names(atlas.concepts)
    return {str(number): f"{number}: {name}" if name else f"cluster {number}" for number, name in names.items()}


def show_list(view: View, page: str | None = None, compared: bool = False) -> None:
    """Show one page of the selection's concepts as a table whose headings sort it.

    Parameters
    ----------
    page
        The page that a concept opens on; by default this one.
    compared
        Show only the models that the view compares, and at first where they lie apart most.
    """
    atlas, models = session.atlas(), list(view.models) if compared else session.atlas().models
    view = view if view.sort else replace(view, sort="-apart" if compared and len(models) > 1 else "clear")
    order = ordered(atlas, view)
    start = min(view.start, max(len(order) - 1, 0)) // ROWS * ROWS
    shown = pd.Index(order[start : start + ROWS])
    table = session.table(view).loc[shown]
    others = {model: session.table(view, model).loc[shown, CELL] for model in models}
    thumbs = html.asset("thumb/%d.webp")
    ranges = delta_range(atlas, view, shown, models)
    rows = [
        Listed(
            concept, row["label"], " · ".join(list(row["words"])[:4]) if row["words"] is not None else "", row,
            [ModelCell(model, *other.iloc[place], bool(other["q"].iloc[place] < LEVEL) or atlas.info.published)
             for model, other in others.items()],
            ranges[place], None if (image := html.best_image_of(atlas, concept, "real")) is None else thumbs % image,
        )
        for place, (concept, row) in enumerate(table.iterrows())
    ]  # fmt: skip
    ranking = RANKINGS.get(view.sort.removeprefix("-"), "").format(models=" and ".join(models))
    html.show(
        "selection.list", key="list", view=view, rows=rows, models=models, start=start, size=ROWS, total=len(order),
        ranking=ranking, page=page, compared=compared,
    )  # fmt: skip


def beside(view: View) -> tuple[int | None, int | None, str] | None:
    """Return the concepts before and after the view's one in the selection, and its place; None if it is not in it."""
    order = ordered(session.atlas(), view)
    places = (order == view.concept).nonzero()[0]
    if not len(places):
        return None
    place = int(places[0])
    before = int(order[place - 1]) if place else None
    after = int(order[place + 1]) if place + 1 < len(order) else None
    return before, after, f"{place + 1:,} of {len(order):,}"
