"""Generate: a form, a job on the queue, its progress and previews, and its images beside the best real ones."""

from __future__ import annotations

import base64
import gc
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import BlindspotError
from engine.jobs import Job, JobQueue
from engine.samplers.generation import (
    GenerationRequest,
    load_generation,
    reproduction_command,
    submit_generation,
    warm_up,
)
from pages.widgets import card, data, markup, url
from pages.widgets.live import asset, live
from pages.widgets.state import View

RESULTS = "BLINDSPOT_RESULTS"
BEGINNINGS = (
    "Each image begins as so many; those that promise the concept go on, and the last is guided. "
    "1: guided from the start, as in the paper."
)


@st.cache_resource(show_spinner=False)
def queue() -> JobQueue:
    """Return the process's queue; its results outlive it, so that a link to a job keeps working."""
    folder = os.environ.get(RESULTS) or Path(tempfile.gettempdir()) / f"blindspot-atlas-{os.getuid()}" / "jobs"
    return JobQueue(Path(folder))


@st.cache_resource(show_spinner=False)
def _warmed(path: Path) -> Thread:
    """Load an atlas's models in the background, once, while its first card is being read."""
    atlas = data.current()

    def load() -> None:
        with suppress(BlindspotError):  # the drawing itself will say it to the person
            warm_up(atlas)
        gc.collect()
        gc.freeze()  # torch and the models stay for good: no collection looks through them again, half a second each

    thread = Thread(target=load, name=f"warm-up of {path}", daemon=True)
    thread.start()
    return thread


def generate(view: View) -> None:
    """Show the form, or the job that the URL names."""
    st.subheader("Generate", anchor=False)
    if view.job is None:
        drawn = data.current().gallery(view.concept)
        if len(drawn):
            live(gallery_html(drawn), key="gallery")
    if data.current().info.published:
        st.caption("Published statistics come without the encoder and the dictionary, so nothing can be drawn.")
        return
    if data.current().info.prior is None:
        st.caption("This atlas names no diffusion prior, so nothing can be drawn: add `prior` to its recipe.")
        return
    st.caption(
        "EnergyDPS steers a diffusion prior towards images that excite exactly this concept while they stay natural."
    )
    _warmed(data.atlas_path())
    _form(view)
    job = queue().get(view.job) if view.job else None
    if view.job and job is None:
        st.caption("That job is unknown here (its results were cleared): generate it again.")
    elif job is not None and job.state == "done":
        live(results_html(job.id, job.result_dir, load_generation(job.result_dir)), key="results")
    elif job is not None:
        progress(job.id)


def _form(view: View) -> None:
    with st.form("generate", border=False):
        count, seed, steps, strength, candidates = st.columns(5)
        settings = {
            "count": count.number_input("Images", 1, 16, GenerationRequest.count),
            "seed": seed.number_input("Seed", 0, 2**31 - 1, 0),
            "steps": steps.number_input("Steps", 5, 250, GenerationRequest.steps),
            "strength": strength.number_input(
                "Strength", 0.0, 20.0, GenerationRequest.strength, 0.1, help="0: the prior alone."
            ),
            "candidates": candidates.number_input("Beginnings", 1, 128, GenerationRequest.candidates, help=BEGINNINGS),
        }
        if st.form_submit_button("Generate", type="primary", icon=":material/auto_awesome:"):
            _submit(view, settings)


def _submit(view: View, settings: Mapping[str, Any]) -> None:
    try:
        job = submit_generation(queue(), data.current(), GenerationRequest(view.concept, **settings))
    except BlindspotError as error:
        st.error(str(error), icon=":material/error:")
        return
    url.change(job=job.id)
    st.rerun()


@st.fragment(run_every=0.5)
def progress(key: str) -> None:
    """Follow one job while it lives; the page runs again when it has ended."""
    job = queue().get(key)
    if job is None or job.state == "done":
        st.rerun()
    if job.ended:
        if job.state == "failed":
            st.error(job.error, icon=":material/error:")
        else:
            st.info("Cancelled.")
        if st.button("Clear", key="clear_job"):
            url.change(job=None)
            st.rerun()
        return
    st.progress(job.step / job.steps if job.steps else 0.0, text=progress_text(job))
    if job.preview:
        source = "data:image/jpeg;base64," + base64.b64encode(job.preview).decode("ascii")
        st.html(f'<img class="ba-preview" src="{source}" alt="Preview of the images being drawn">')
    if st.button("Cancel", icon=":material/close:", key="cancel_job"):
        queue().cancel(key)


def progress_text(job: Job) -> str:
    """Say where a job is: its place in the queue, or its step and the time left."""
    if job.state == "queued":
        return f"Waiting, {job.position} before this one" if job.position else "Starts next"
    if job.step == 0:
        return "Loading the models (once per start of the app)"
    left = "" if job.seconds_left is None else f", about {max(1, round(job.seconds_left))} s left"
    return f"Step {job.step} of {job.steps}{left}"


def results_html(job: str, folder: Path, record: Mapping[str, Any]) -> str:
    """Return a finished drawing: its images with scores, then the best real images by the same score."""
    best = record["reference_score"]
    drawn = "".join(
        _result(_data_uri(folder / name), f"s = {score:.3f}", f"codes {codes:.3f}")
        for name, score, codes in zip(record["images"], record["scores"], record["codes_scores"], strict=True)
    )
    real = "".join(_reference(item["image"], item["score"]) for item in record["references"])
    mean = sum(record["scores"]) / len(record["scores"])
    against = f", {mean / best:.2f}× the mean of the best real images" if best and mean > 0 else ""
    settings = record["parameters"]
    how = f"seed {settings['seed']}, {settings['steps']} steps, strength {settings['strength']:g}"
    title = f"Drawn for concept {settings['concept']} <small>{escape(how)}, {record['seconds']:.1f} s</small>"
    return (
        f'<section data-job="{escape(job)}"><h3>{title}</h3>'
        f'<p class="ba-note">Mean intrinsic score s = {mean:.3f}{against}.</p>'
        f'<div class="ba-results">{drawn}</div>{again_html(settings)}</section>'
        f'<section><h3>Best real images by the same score</h3><div class="ba-results">{real}</div></section>'
    )


def gallery_html(rows: pd.DataFrame) -> str:
    """Return the images that were drawn into the atlas for a concept, with their scores and how they were made."""
    first, mean = rows.iloc[0], rows["score"].mean()
    best = first["reference_score"]
    against = f", {mean / best:.2f}× the mean of the best real images" if best > 0 and mean > 0 else ""
    how = f"{first['method']}, seed {first['seed']}, {first['steps']} steps, strength {first['strength']:.3g}"
    drawn = "".join(
        _result(_gallery_uri(row.concept, row.rank), f"s = {row.score:.3f}", f"codes {row.codes_score:.3f}")
        for row in rows.itertuples()
    )
    return (
        f"<section><h3>Drawn with the atlas <small>{escape(how)}</small></h3>"
        f'<p class="ba-note">Mean intrinsic score s = {mean:.3f}{against}.</p>'
        f'<div class="ba-results">{drawn}</div>{again_html({**first, "count": len(rows)})}</section>'
    )


def again_html(parameters: Mapping[str, Any]) -> str:
    """Return the command that draws these images again, folded."""
    path = data.atlas_path()
    command = escape(
        reproduction_command(parameters, path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name)
    )
    return f'<details class="ba-again"><summary>Draw these again</summary><code>{command}</code></details>'


def _gallery_uri(concept: int, rank: int) -> str:
    content = data.current().gallery_bytes(concept, rank)
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def _reference(image: int, score: float) -> str:
    shown = markup.picture(asset(f"thumb/{image}.webp"), card.fit_of(image))
    return f"<figure>{shown}<figcaption><b>s = {score:.3f}</b> real</figcaption></figure>"


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")


def _result(source: str, main: str, detail: str) -> str:
    return (
        f'<figure><img class="ba-pixel" src="{source}" alt="Drawn image, {main}">'
        f"<figcaption><b>{main}</b> {detail}</figcaption></figure>"
    )
