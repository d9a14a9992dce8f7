"""Invariance: images that the model cannot tell from a query image, drawn through the atlas's prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from engine.atlas.schema import priors_of
from engine.errors import BlindspotError
from engine.invariance.parsing import parse_target
from engine.invariance.records import finished_invariants, load_invariants, members_command, submit_invariants
from engine.invariance.request import InvariantRequest
from engine.samplers.records import generated_images
from pages.widgets import html, jobs, running, session
from pages.widgets.session import View

KEYS = (*session.SETTINGS, "concept", "image", "job")
EARLIER = 8  # finished searches that the page lists; a string below it would show on the page
INTRODUCTION = (
    "Which images give exactly the same response as this one? Members of the invariant set are drawn through the "
    "prior: what they share is what the response needs, what differs is what it is blind to."
)
HELD = {"concept": "the concept's score", "codes": "the codes of all its concepts", "other": "another response"}
METHODS = {
    "walk": "walk: the prior's law on the set",
    "projection": "projection: to the nearest member",
    "descent": "descent: the thesis's Algorithm 1",
}
OTHER_HELP = (
    "neuron:LAYER:CHANNEL of the encoder, code:CONCEPT@TOKEN or concept:54,60. The command `invariants` also takes "
    "classifiers."
)
SIGNAL_HELP = "Members are found at this level of noise: with less signal they vary more and fewer reach the set."


LOW_PASS = {"auto": "yes, where it can be", "none": "no"}
LOW_PASS_HELP = (
    "Members whose response is the same after an ideal low-pass filter at half of the finest detail rest on what "
    "people see. A member that cannot be held to it is drawn without in its last try."
)
MARK_HELP = "So many members are marked as those that differ most, by the class token of the atlas's encoder."
CHOICES = {"farthest-first": "extremes (farthest-first)", "k-dpp": "at random, apart (k-DPP)"}


def query_of(view: View) -> tuple[int, int]:
    """Return the concept and the image that the page is about: the view's, or the model's most suppressed concept."""
    concept = view.concept
    if concept is None:
        table = session.table(view)
        concept = int(table.loc[~table["dead"], "delta"].idxmin())
    image = view.image if view.image is not None else html.best_image(concept, "real")
    return concept, 0 if image is None else image


def form(view: View, concept: int, image: int) -> None:
    """Ask for members of the set of one image."""
    usual = InvariantRequest
    with st.form("invariance", border=False):
        held, other = st.columns(2)
        kind = held.radio("What stays the same", list(HELD), format_func=HELD.__getitem__, horizontal=True)
        text = other.text_input("Another response", max_chars=200, help=OTHER_HELP)
        count, seed, method, signal = st.columns((1, 1, 2, 1))
        settings: dict[str, Any] = {
            "count": int(count.number_input("Members", 1, 16, usual.count)),
            "seed": int(seed.number_input("Seed", 0, 2**31 - 1, 0)),
            "method": method.selectbox("Method", list(METHODS), format_func=METHODS.__getitem__),
            "signal": signal.number_input("Signal", 0.0, 0.95, usual.signal, 0.05, help=SIGNAL_HELP),
        }
        blurred, choose, choice = st.columns((2, 1, 2))
        settings |= {
            "low_pass": blurred.selectbox(
                "Held after a blur, too", list(LOW_PASS), format_func=LOW_PASS.__getitem__, help=LOW_PASS_HELP
            ),
            "choose": min(int(choose.number_input("Mark", 0, 16, 0, help=MARK_HELP)), settings["count"]),
            "choice": choice.selectbox("Marked are", list(CHOICES), format_func=CHOICES.__getitem__),
        }
        if not st.form_submit_button("Draw members", type="primary", icon=":material/auto_awesome:"):
            return
        target = {"concept": f"concept:{concept}", "codes": "codes", "other": text}[kind]
        try:
            if parse_target(target).source is not None:  # a browser names no folder of this machine
                raise BlindspotError("Classifiers are for the command: run `python -m precompute invariants`.")
            request = InvariantRequest(target, image, **settings)
            job = submit_invariants(jobs.queue(), session.atlas(), request, jobs.me())
        except BlindspotError as error:
            st.error(html.plain(error, code=True), icon=":material/error:")
            return
        go = {"concept": concept, "image": image, "job": job.id}
        running.announce(job.id, f"Members for image {image}", go)
        session.change(**go)
        st.rerun()


def results(view: View, record: Mapping[str, Any], sources: list[str]) -> None:
    """Show a finished search: its members with their responses, and what varies among them."""
    atlas, table, request = session.atlas(), session.table(view), record["request"]
    varies = {
        group: [row for row in rows if 0 <= row["concept"] < atlas.count]
        for group, rows in (record["varies"] or {}).items()
    }
    query = request["image"] if request["image"] is not None and request["image"] < atlas.info.images else None
    path = session.atlas_path()
    html.show(
        "invariance.members", key="members", record=record, request=request, query=query, varies=varies, table=table,
        images=list(zip(sources, record["members"], strict=True)), command=members_command(request, path.name),
        job=view.job,
    )  # fmt: skip


def show_jobs(view: View) -> None:
    """Show the job that the URL names, and earlier searches."""
    queue = jobs.queue()
    job = queue.get(view.job) if view.job else None
    if view.job and job is None:
        st.caption("That search is unknown here (its results were cleared): draw its members again.")
    elif job is not None and job.state == "done":
        record = load_invariants(job.result_dir)
        results(view, record, [html.data_uri(one, "png") for one in generated_images(job.result_dir, record)])
    elif job is not None:
        jobs.progress(job.id)
    earlier = [(other, record) for other, record in finished_invariants(queue, session.atlas()) if other.id != view.job]
    if earlier:
        rows = [(other.id, record["request"]) for other, record in earlier[:EARLIER]]
        html.show("invariance.earlier", key="earlier", rows=rows)


view, atlas = session.open_view("invariance", KEYS), session.atlas()
st.title("Invariance", anchor=False)
if atlas.info.published or not atlas.has_images:
    st.caption("Published statistics come without images, encoder and dictionary, so nothing can be drawn.")
    st.stop()
if not priors_of(atlas.info):
    st.caption("This atlas names no diffusion prior, so nothing can be drawn: add `prior` to its recipe.")
    st.stop()
html.show("parts.note", key="introduction", text=INTRODUCTION)
concept, image = query_of(view)
left, right = st.columns([3, 7], gap="large")
with left:
    html.show("invariance.query", key="query", concept=concept, image=image, table=session.table(view))
with right, html.explained():
    form(view, concept, image)
with html.explained():
    show_jobs(view)
