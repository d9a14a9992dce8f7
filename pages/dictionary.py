"""Dictionary: how good the dictionary is whose concepts all other pages speak of, and which of its atoms to doubt."""

from typing import Any

import pandas as pd
import streamlit as st

from engine.figures.dictionary import most_alike
from pages.widgets import html, session
from pages.widgets.plot import show_figure
from pages.widgets.reports import find_report

LISTED = 6
MISSING = """
This atlas has no report of its dictionary. Run its recipe once more, `python -m precompute run RECIPE --out {path}`:
only the stages *report* and *assemble* are new. For stability across seeds add
`--set dictionary.report_seeds=3`, which trains two more dictionaries.
"""
UNPUBLISHED = """
This atlas holds published statistics of {concepts} concepts. Their dictionary is not part of them, so nothing can be
said here about its atoms and its fit.
"""


def histogram(name: str) -> None:
    """Show one of the dictionary's histograms."""
    show_figure(find_report(f"dictionary-{name}", view).report.figure, key=name)


def ranked(*lists: tuple[str, list[tuple]], key: str, digits: int = 2) -> None:
    """Show short lists: a title, and rows of a number and the concepts that have it."""
    labels = session.atlas().shown_labels()
    html.show("dictionary.ranked", key=key, lists=lists, labels=labels, digits=digits)


def extremes(concepts: pd.DataFrame, column: str, ascending: bool) -> list[tuple]:
    """Return the first concepts by a column."""
    rows = concepts.sort_values(column, ascending=ascending, kind="stable").head(LISTED)
    return [(value, (concept,)) for concept, value in rows[column].items()]


def atoms(summary: dict[str, Any], concepts: pd.DataFrame) -> None:
    """Coherence, distance and stability, each with the live concepts at its ends."""
    dead = session.atlas().concepts["dead"].to_numpy(bool)
    alive, stable = concepts[~dead], summary["stability"]
    columns = st.columns(3 if stable else 2, gap="large")
    with columns[0]:
        histogram("coherence")
        pairs = most_alike(alive[~dead[alive["nearest"].to_numpy()]], LISTED).itertuples()
        ranked(("Most alike pairs", [(pair.coherence, (pair.a, pair.b)) for pair in pairs]), key="alike")
    with columns[1]:
        histogram("hull")
        ranked(("Furthest from the data", extremes(alive, "hull_distance", False)), key="far", digits=3)
    if stable:
        with columns[2]:
            histogram("stability")
            least, most = (extremes(alive, "stability", ascending) for ascending in (True, False))
            ranked(("Least stable", least), ("Most stable", most), key="stable")


view = session.open_view("dictionary", session.SETTINGS)
atlas = session.atlas()
st.title("Dictionary", anchor=False)
report = atlas.dictionary_report()
if report is None and atlas.info.published:
    st.info(UNPUBLISHED.format(concepts=f"{atlas.count:,}"))
elif report is None:
    st.info(MISSING.format(path=str(session.atlas_path()).replace("`", "'")))
else:
    html.show("dictionary.headline", key="headline", info=atlas.info, summary=report.summary)
    st.header("How it is used", anchor="use", divider="gray")
    left, right = st.columns(2, gap="large")
    with left:
        histogram("frequency")
    with right:
        histogram("l0")
    st.header("What its atoms are", anchor="atoms", divider="gray")
    atoms(*report)
