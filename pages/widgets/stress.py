"""Stress test on the card: what models show when they are asked for the concept, or a form that asks them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from engine.errors import BlindspotError
from engine.stress.records import (
    StressRow,
    finished_stress,
    rows_of,
    stress_command,
    stress_sentence,
    strip_bytes,
    submit_stress,
)
from pages.widgets import html, jobs, running, session
from pages.widgets.session import View

PROMPTS, IMAGES = 20, 2
"""What the form asks unless told otherwise: less than the command, so that somebody can wait for it."""
FORM_HELP = (
    "Every model draws from captions that name the concept. Is it never drawn, a true blindspot, or does it come when "
    "asked for?"
)


def show_stress(view: View) -> None:
    """Show the atlas's test of the view's concept, else a finished one of this machine, else a form to run one."""
    atlas, concept = session.atlas(), view.concept
    if rows := rows_of(atlas, concept):
        _results(view, rows, {row.model: atlas.stress_bytes(concept, row.model) for row in _shown(view, rows)}, "webp")
        return
    if not atlas.info.pipelines or not atlas.has_images:
        return
    found = finished_stress(jobs.queue(), atlas, concept)
    if found is not None and found[0].result_dir is not None:
        folder, rows = found[0].result_dir, found[1]
        _results(view, rows, {row.model: strip_bytes(folder, row) for row in _shown(view, rows)}, "png")
    elif view.job is None:
        _form(view)


def _shown(view: View, rows: list[StressRow]) -> list[StressRow]:
    """The view's model and what it is compared with: the rows whose images are shown."""
    own = [row for row in rows if row.model == view.model]
    return own + [row for row in rows if own and row.model == own[0].against]


def _results(view: View, rows: list[StressRow], strips: dict[str, bytes], kind: str) -> None:
    own = next((row for row in rows if row.model == view.model), None)
    html.show(
        "stress.results", key="stress", rows=rows, view=view, said=stress_sentence(own) if own else "",
        strips={model: html.data_uri(content, kind) for model, content in strips.items()},
        command=stress_command(_atlas_name(), view.concept or 0),
    )  # fmt: skip


def _atlas_name() -> Path | str:
    path = session.atlas_path()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name


def _form(view: View) -> None:
    with st.expander("Stress test", icon=":material/psychology_alt:"), st.form("stress", border=False):
        st.caption(FORM_HELP)
        prompts, images = st.columns(2)
        count = int(prompts.number_input("Prompts", 2, 50, PROMPTS))
        each = int(images.number_input("Images of each prompt", 1, 10, IMAGES))
        if not st.form_submit_button("Ask every model"):
            return
        try:
            job = submit_stress(jobs.queue(), session.atlas(), view.concept or 0, count, each, jobs.me())
        except BlindspotError as error:
            st.error(html.plain(error, code=True), icon=":material/error:")
            return
        go = {"model": view.model, "concept": view.concept, "job": job.id}
        running.announce(job.id, f"Stress test of concept {view.concept}", go)
        session.change(job=job.id)
        st.rerun()
