"""Jobs that somebody began in the app: one line on every page while they run, and until their results are looked at."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from engine.jobs import Job
from pages.widgets import html, jobs, session

MINE = "begun_jobs"
"""Session key: the jobs that this tab began and has not seen finished."""


class Begun(NamedTuple):
    """A job that was begun in the app."""

    atlas: str
    title: str
    page: str
    go: dict
    """The parameters that lead to it."""


@st.cache_resource(show_spinner=False)
def begun() -> dict[str, Begun]:
    """Every job that this process was asked for, by id."""
    return {}


def announce(job: str, title: str, go: dict) -> None:
    """Remember what a job is and that this page shows its results."""
    begun()[job] = Begun(str(session.atlas().path), title, st.session_state[session.PAGE], go)
    st.session_state.setdefault(MINE, set()).add(job)


def show() -> None:
    """Show this atlas's jobs that run or wait, and this tab's finished ones, but the one that the page is about."""
    if not begun():
        return
    rows = _rows()
    if any(not job.ended for job, _ in rows):
        _followed()
    elif rows:
        _line(rows)


@html.fragment(run_every=2.0)
def _followed() -> None:
    rows = _rows()
    if not any(not job.ended for job, _ in rows):
        st.rerun()
    _line(rows)


def _rows() -> list[tuple[Job, Begun]]:
    here, shown, mine = str(session.atlas().path), st.query_params.get("job"), st.session_state.setdefault(MINE, set())
    found = [(job, begun()[job.id]) for job in jobs.queue().jobs() if job.id in begun()]
    mine -= {job.id for job, _ in found if job.ended and job.id == shown}
    return [
        (job, what) for job, what in found
        if what.atlas == here and job.id != shown and (not job.ended or (job.id in mine and job.state == "done"))
    ]  # fmt: skip


def _line(rows: list[tuple[Job, Begun]]) -> None:
    html.show("generate.running", key="running", rows=[
        (what.title, "done" if job.ended else jobs.progress_text(job), what.page, what.go) for job, what in rows
    ])  # fmt: skip
