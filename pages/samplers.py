"""Samplers: which method draws a concept best at equal activation, in images first and then in numbers."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import streamlit as st

from engine.errors import BlindspotError
from engine.figures.samplers import NARROW_HEIGHT
from engine.figures.style import concept_names
from engine.reports import samplers
from pages.widgets import html, session, shelf
from pages.widgets.reports import find_report, missing, sampler_image, show_report


def drawn_here() -> bool:
    """Return whether the opened atlas is the one whose concepts were drawn: a choice then goes from page to page.

    In another atlas, or since the demo has another encoder, the same number is another concept.
    """
    if session.atlas_path() != shelf.DEFAULT:
        return False
    try:
        encoder = samplers.measured().encoder
        return encoder is None or encoder == session.atlas().info.encoder["id"]
    except BlindspotError:
        return False


OWN = drawn_here()
KEYS = ("concept",) if OWN else ()
Best = Callable[[pd.Series], float]
BESTS: dict[str, Best] = {
    "recognised": pd.Series.max,
    "matched": pd.Series.max,
    "of_target": lambda values: values.loc[(values - 1).abs().idxmin()],
    "frechet": pd.Series.min,
    "kid": pd.Series.min,
    "diversity": pd.Series.max,
    "seconds": pd.Series.min,
    "megabytes": pd.Series.min,
}
DIGITS = {"recognised": 2, "matched": 0, "of_target": 2, "slope": 2, "seconds": 2, "megabytes": 2}


def concept_labels(concepts: list[int]) -> dict[int, str]:
    """Return label and number of compared concepts; the number alone where the demo atlas is not at hand."""
    known = samplers.measured().labels
    if known:
        return dict(zip(concepts, concept_names([known.get(concept) for concept in concepts], concepts), strict=True))
    try:
        labels = session.open_atlas(shelf.DEFAULT).shown_labels().reindex(concepts)
    except BlindspotError:
        labels = [None] * len(concepts)
    return dict(zip(concepts, concept_names(labels, concepts), strict=True))


def concept_choice(concepts: list[int]) -> int:
    """Let a person choose a concept, and return it."""
    names = concept_labels(concepts)
    if not OWN:
        return st.selectbox("Concept", concepts, format_func=names.get)
    view = session.open_view("samplers", KEYS)
    concept = view.concept if view.concept in concepts else concepts[0]
    if view.concept not in (None, concept):
        session.put(replace(view, concept=None), KEYS)
    key = session.bound("concept", concept)
    return st.selectbox(
        "Concept", concepts, format_func=names.get, key=key,
        on_change=lambda: session.change(concept=st.session_state[key]),
    )  # fmt: skip


@html.fragment
def drawings() -> None:
    """One concept by every method."""
    found = samplers.measured()
    with st.container(width=420):
        concept = concept_choice(found.concepts)
    try:
        places = samplers.tiles(concept)
    except BlindspotError as error:
        st.info(html.plain(error, code=True))
        return
    words = found.table["method"]
    notes = {words[method]: found.notes.get((concept, method)) for method in found.methods}
    html.show(
        "samplers.drawings", key="drawings", concept=concept, name=concept_labels([concept])[concept], own=OWN,
        source=sampler_image(concept), real=places[0], blocks=list(zip(notes, places[1:], strict=True)), notes=notes,
    )  # fmt: skip


def numbers() -> None:
    """All methods in numbers, with what chance gives, and each beside energy guidance where both reached the target."""
    found, table = samplers.measured(), find_report("samplers", VIEW)
    rows = found.table.loc[[*found.methods, *found.bases]]
    columns = [shaded(rows[name], DIGITS.get(name.split()[-1], 3)) for name in rows.columns[1:]]
    lines = zip(rows["method"], rows.index.isin(found.bases), zip(*columns, strict=True), strict=True)
    judges = [samplers.JUDGES[judge] for judge in found.judges]
    html.show(
        "samplers.numbers", key="numbers", found=table, lines=list(lines), judges=judges, concepts=len(found.concepts),
        recognised="recognised" in rows,
    )  # fmt: skip
    if found.fair.empty:
        return
    pairs = []
    for method, pair in found.fair.groupby("method", sort=False):
        cells = [shaded(pair[name], 3) for name in samplers.judged_columns(found.judges)]
        gains = [gain(pair.iloc[1], name) for name in samplers.judged_columns(found.judges)]
        pairs.append(
            (method, pair["concepts"].iloc[0], [(*cell, more) for cell, more in zip(cells, gains, strict=True)])
        )
    with st.expander("Where both reached the target"):
        html.show("samplers.fair", key="fair", found=find_report("samplers-fair", VIEW), pairs=pairs, judges=judges)


def shaded(values: pd.Series, digits: int) -> list[tuple[str, bool]]:
    """Return a column's cells, and whether each is the best; what no method drew does not compete."""
    best = BESTS.get(values.name.split()[-1])
    rivals = values.drop([*samplers.BASES], errors="ignore").dropna().astype(float)
    winner = html.number(best(rivals), digits) if best and len(rivals) > 1 else None
    texts = [html.number(float("nan") if pd.isna(value) else float(value), digits) for value in values]
    return [
        (text, text == winner and name not in samplers.BASES) for name, text in zip(values.index, texts, strict=True)
    ]


def gain(row: pd.Series, column: str) -> str:
    """Return by how much energy guidance is the more diverse, where that is known."""
    judge, quantity = column.split()
    more, error = row.get(f"{judge} gain"), row.get(f"{judge} error")
    known = quantity == "diversity" and not pd.isna(more) and not pd.isna(error)
    return f"({more:+.3f} ± {error:.3f})".replace("-", "−") if known else ""


VIEW: session.View = session.open_view("samplers", KEYS)
st.title("Samplers", anchor=False)
if missing("samplers", VIEW):
    st.stop()
report = samplers.measured()
html.show("samplers.introduction", key="introduction", found=report, own=OWN)
drawings()
st.header("In numbers", anchor="numbers", divider="gray")
numbers()
st.header("Distance and diversity", anchor="distances", divider="gray")
show_report("samplers-distances", VIEW, narrow_height=NARROW_HEIGHT * len(report.judges))
