"""Theory: what it costs to ask a prior for more of a concept, exactly, and how near samplers come to the best way."""

import streamlit as st

from engine.figures.theory import LAWS
from engine.reports.level_sets import COMMAND as COMMAND_LEVEL_SETS
from engine.reports.level_sets import measured
from engine.reports.theory import COMMAND, sample_count
from pages.widgets import controls, html, session
from pages.widgets.reports import find_report, missing, show_report

KEYS = ("target",)
LEVEL_SETS = (
    "An invariant set holds everything to which a model answers as to one query. On a curve in the plane the prior's "
    "law is known exactly: its density over the slope of the response, φ / |∇f|. Methods that only solve f(z) = y "
    "miss it."
)
INTRODUCTION = (
    "Both laws below have the same mean score. The threshold keeps only images that score above a cut; the tilt "
    "weighs every image by exp(βs), which is the nearest law to the prior with that mean. The prior here is a mixture "
    "of four Gaussians in the plane and the score a function of the angle, so that every number is exact."
)


@html.fragment
def one_target() -> None:
    """Both laws at the mean score that a person chooses."""
    view = session.open_view("theory", KEYS)
    controls.target_choice(view)
    planes, table = st.columns([11, 9], gap="large")
    with planes:
        show_report("theory-planes", view)
    with table:
        found = find_report("theory-numbers", view)
        hard, tilt = found.report.table.to_dict("records")
        names = LAWS["hard"][0], LAWS["tilt"][0]
        html.show("theory.laws", key="numbers", found=found, names=names, hard=hard, tilt=tilt)


def samplers(view: session.View) -> None:
    """What samplers draw on the same mixture."""
    st.header("What samplers draw", anchor="samplers", divider="gray")
    if missing("theory-samplers", view):
        return
    figure, table = st.columns([9, 11], gap="large")
    with figure:
        show_report("theory-samplers", view)
    with table:
        rows = find_report("theory-samplers", view).report.table
        betas = rows.drop_duplicates("target").sort_values("target")[["target", "beta"]].to_dict("records")
        methods = {
            method: some.set_index("target").to_dict("index") for method, some in rows.groupby("method", sort=False)
        }
        samples = sample_count(rows)
        html.show(
            "theory.samplers", key="samplers", methods=methods, betas=betas, samples=samples, command=COMMAND
        )  # fmt: skip


def level_sets(view: session.View) -> None:
    """What a classifier cannot tell apart, and which methods find it with the prior's law."""
    st.header("All that a model cannot tell apart", anchor="level-sets", divider="gray")
    html.show("parts.note", key="level_sets", text=LEVEL_SETS)
    left, right = st.columns(2, gap="large")
    with left:
        show_report("theory-circles", view)
    with right:
        if not missing("theory-level-set", view):
            show_report("theory-level-set", view)
            html.show("theory.level_sets", key="level_set_numbers", found=measured(), command=COMMAND_LEVEL_SETS)


view = session.open_view("theory", KEYS)
st.title("Theory", anchor=False)
html.show("parts.note", key="introduction", text=INTRODUCTION)
one_target()
st.header("At every mean score", anchor="curves", divider="gray")
left, right = st.columns([11, 9], gap="large")
with left:
    show_report("theory-biases", view)
with right:
    show_report("theory-speeds", view)
samplers(view)
level_sets(view)
