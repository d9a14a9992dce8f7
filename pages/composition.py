"""Composition: which concepts appear together in real and in drawn images, and what scalar metrics make of it."""

import streamlit as st

from engine.atlas.schema import HALVES
from engine.reports.composition import changed_pairs, significance_sentence
from pages.widgets import controls, html, session
from pages.widgets.reports import find_report, missing, show_report

KEYS = ("model", "estimator", "temperature", "low", "high", "top")


@html.fragment
def one_model() -> None:
    """What one model combines differently."""
    view = session.open_view("composition", KEYS)
    st.header("What one model combines differently", anchor="changes", divider="gray")
    controls.model_choice(view)
    pictures, figures = st.columns([11, 9], gap="large")
    with pictures:
        if not missing("changed-pairs", view):
            rows = changed_pairs(session.atlas(), view.model)
            verdict, composed = significance_sentence(rows), session.atlas().info.composed
            html.show("composition.changed", key="changed", rows=rows, view=view, verdict=verdict, composed=composed)
    with figures:
        show_report("changed-pairs", view)
        show_report("directions", view)


view = session.open_view("composition", KEYS)
st.title("Composition", anchor=False)
if missing("connections", view):
    st.stop()
for column, name in zip(st.columns(3, gap="large"), ("connections", "unique-connections", "spectrum"), strict=True):
    with column:
        show_report(name, view)
one_model()
st.header("Scalar metrics", anchor="metrics", divider="gray")
if not missing("metrics", view):
    found = find_report("metrics", view)
    rows = found.report.table.sort_values("model", key=lambda names: names == HALVES, kind="stable")
    html.show("composition.metrics", key="metrics", found=found, rows=rows.to_dict("records"), halves=HALVES)
