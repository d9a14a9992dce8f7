"""Ratings: people rate images without knowing what they are of; what was found is shown once the study has ended."""

from __future__ import annotations

import streamlit as st

from engine.errors import BlindspotError
from engine.figures.ratings import misfire_curves
from engine.ratings.preparing import prepare
from engine.ratings.protocols import PROTOCOLS, SUCCESS
from engine.ratings.store import LONGEST_RATER, RatingStudy, find_studies, free_file, studies_folder
from pages.widgets import html, ratings, session
from pages.widgets.plot import show_figure

KEYS = ("study", "rater")
NUMBERS = {"interpretability": "concepts", "captions": "pairs", "errors": "images"}
UNITS = {
    "interpretability": "Concepts: the grids drawn into the atlas, and the best real images of the same concepts",
    "captions": "Pairs of largest divergence, of each model",
    "errors": "Images of each model and of the real ones",
}
OF = {"interpretability": "concepts", "captions": "pairs", "errors": "images"}


def new_study() -> None:
    """Make a study of what the atlas holds."""
    with st.popover("New study", icon=":material/add:"), st.form("new_study", border=False):
        protocol = st.radio("What is asked", list(PROTOCOLS), format_func=lambda name: PROTOCOLS[name].title)
        count = st.number_input("How many", 1, 500, 30, help=". ".join(UNITS.values()) + ".")
        if not st.form_submit_button("Make it"):
            return
        path = free_file(studies_folder(session.atlas_path()), protocol)
        with html.explained(), st.spinner("Collecting images"):
            made = prepare(session.atlas(), path, protocol, **{NUMBERS[protocol]: int(count)})
            session.change(study=made.study.name, rater=None)
            st.rerun()


def ask_name(study: RatingStudy) -> None:
    """Say what is asked, and who is here."""
    html.show("ratings.rules", key="rules", study=study, items=len(study), progress=study.progress())
    with st.form("rater", border=False, width=360):
        name = st.text_input("Your name", max_chars=LONGEST_RATER, autocomplete="nickname")
        if st.form_submit_button("Begin", type="primary"):
            with html.explained():
                session.change(rater=study.spelling(name))
                st.rerun()


def offer_end(study: RatingStudy) -> None:
    """End the study, for everyone."""
    with st.popover("End the study"):
        st.write("Nobody can rate any more, and everyone sees what the images are of. This cannot be undone.")
        if st.button("End it and show the results", type="primary"):
            study.end()
            st.rerun()


@html.fragment
def rating(study: RatingStudy, rater: str) -> None:
    """One item after the other, until all are rated."""
    order, rated = study.order(rater), study.rated(rater)
    if study.ended:
        st.rerun()
    if len(rated) < len(order) or st.session_state.get(ratings.PLACE) in rated:
        ratings.rate(study, rater, order, rated)
        return
    html.show("ratings.finished", key="finished", rater=rater, items=len(order), progress=study.progress())
    offer_end(study)


def results(study: RatingStudy) -> None:
    """What an ended study found."""
    report, name = ratings.found(study), study.protocol.name
    html.show("ratings.head", key="head", study=study, report=report, kinds=OF[name])
    if not len(report.ratings):
        html.show("ratings.nothing", key="nothing")
    elif name == "interpretability":
        html.show("ratings.interpretability", key="result", report=report, success=SUCCESS)
    elif name == "captions":
        options = [option.name for option in study.protocol.options]
        html.show("ratings.captions", key="result", report=report, options=options)
    else:
        html.show("ratings.errors", key="result", report=report)
        show_figure(misfire_curves(report.tables["curves"]), key="curves")
        html.show("ratings.misfires", key="misfires", report=report)


def one_study(study: RatingStudy, rater: str | None) -> None:
    """The study that the address names, for the rater that it names."""
    if study.ended:
        results(study)
    elif rater:
        rating(study, rater)
    else:
        ask_name(study)
        offer_end(study)


view = session.open_view("ratings", KEYS)
names = find_studies(session.atlas_path())
opened = {}
for name in names:
    try:
        opened[name] = ratings.open_study(name)
    except BlindspotError as error:
        st.caption(html.plain(error))
waiting = [name for name, study in opened.items() if not study.ended]
chosen = view.study or next(iter([*waiting, *opened]), None)
if not (chosen and view.rater):
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        st.title("Ratings", anchor=False, width="content")
        new_study()
    if not names:
        command = f"blindspot-atlas ratings prepare {session.atlas_path().name} --from gallery --from FOLDER"
        html.show("ratings.empty", key="empty", command=command)
    else:
        rows = [
            (name, study.protocol.title, len(study), len(study.progress()), study.ended)
            for name, study in opened.items()
        ]
        html.show("ratings.studies", key="studies", rows=rows, chosen=chosen)
else:
    st.title("Ratings", anchor=False)
if chosen in opened:
    one_study(opened[chosen], view.rater)
elif chosen:
    st.info(html.plain(f"There is no study {chosen} beside this atlas."))
