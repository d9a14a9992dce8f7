"""Generate: a form, a job on the queue, its progress and previews, and its images beside the best real ones."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine.atlas.schema import priors_of
from engine.devices import DEVICE, DTYPE
from engine.errors import BlindspotError
from engine.files import user_data
from engine.jobs import Job, JobQueue
from engine.reports.samplers import METHODS
from engine.samplers.generation import GenerationRequest, warm_up
from engine.samplers.recognition import concept_label, recognition_sentence, verdicts
from engine.samplers.records import (
    drawn_with,
    finished_generations,
    generated_images,
    load_generation,
    reproduction_command,
    stored_method,
    submit_generation,
    tilt_sentence,
)
from engine.samplers.registry import WITHOUT_PRIOR
from engine.stress.records import is_stress
from pages.widgets import html, session, shelf
from pages.widgets.session import View

RESULTS = "BLINDSPOT_RESULTS"
EARLIER = 8
"""Finished drawings of a concept that its card lists."""
OFFERED = ("energy-guidance", "energydps", "energydps-smc", "retrieval")
"""Methods that the form offers; the command `sample` has all."""
METHOD_HELP = (
    "Energy guidance reaches the score of real images; its strength is no inverse temperature. EnergyDPS is the "
    "paper's Algorithm 1; its particle filter converges to the tilt p exp(βs). Retrieval shows the best real images."
)
STRENGTH_HELP = (
    "Energy guidance: a push, as a share of a step's own noise. EnergyDPS and its particle filter: β is 32 times this, "
    "over the score from which an image is not pushed any more. 0: the prior alone."
)
BEGINNINGS = (
    "Energy guidance: each image begins as so many; those that promise the concept go on, the last is guided. More "
    "take longer and show the concept more often."
)
PRIOR_HELP = "The diffusion model that images are drawn from; retrieval shows real images and has none."
PARTICLES_HELP = "EnergyDPS, particle filter: particles behind each image."


@st.cache_resource(show_spinner=False)
def queue() -> JobQueue:
    """Return the process's queue; its results outlive it, so that a link to a job keeps working."""
    return JobQueue(results_folder(), devices=(device(),), alive=_is_here)


def device() -> str:
    """Return the device that BLINDSPOT_DEVICE names; "auto" is the GPU if there is one."""
    return os.environ.get(DEVICE) or "auto"


def dtype() -> str | None:
    """Return the precision that BLINDSPOT_DTYPE names, if it names one."""
    return os.environ.get(DTYPE) or None


def results_folder() -> Path:
    """Return the folder of all drawings: what BLINDSPOT_RESULTS says, else one that only this user may open.

    Raises
    ------
    BlindspotError
        If it cannot be made, or if the default one is somebody else's.
    """
    named = os.environ.get(RESULTS)
    folder = Path(named).expanduser() if named else user_data() / "jobs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not named and os.name == "posix":
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise BlindspotError(
                    f"Drawings are not kept in {folder}, which is a link or somebody else's: remove it, or set "
                    f"{RESULTS} to a folder of your own."
                )
            folder.chmod(0o700)
    except OSError as error:
        raise BlindspotError(
            f"Drawings cannot be kept in {folder}: {error.strerror or error}; set {RESULTS} to a folder of your own."
        ) from error
    return folder


def me() -> str:
    """Return the id of this browser tab's session."""
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def _is_here(holder: str) -> bool:
    """Return whether a session's tab is still open."""
    return not runtime.exists() or runtime.get_instance().is_active_session(holder)


@st.cache_resource(show_spinner=False)
def _warmed(path: Path) -> Thread:
    """Load the demo atlas's models in the background, once, while its first card is being read.

    Another atlas's models are loaded, and fetched from a hub, only when a person asks for a drawing.
    """
    atlas = session.atlas()

    def load() -> None:
        with suppress(BlindspotError):  # the drawing itself will say it to the person
            warm_up(atlas, device(), dtype())
        gc.collect()
        gc.freeze()  # torch and the models stay for good: no collection looks through them again, half a second each

    thread = Thread(target=load, name=f"warm-up of {path}", daemon=True)
    thread.start()
    return thread


def generate(view: View) -> None:
    """Show the form, or the job that the URL names."""
    st.subheader("Generate", anchor=False)
    atlas = session.atlas()
    gallery = atlas.gallery(view.concept)
    if view.job is None and len(gallery):
        show_gallery(gallery)
    if atlas.info.published:
        st.caption("Published statistics come without the encoder and the dictionary, so nothing can be drawn.")
        return
    if not (priors := priors_of(atlas.info)):
        st.caption("This atlas names no diffusion prior, so nothing can be drawn: add `prior` to its recipe.")
        return
    st.caption("A diffusion prior is steered towards images that excite exactly this concept while they stay natural.")
    if session.atlas_path() == shelf.DEFAULT:
        _warmed(session.atlas_path())
    else:
        names = ", ".join(f"“{html.plain(part.get('id'))}”" for part in (atlas.info.encoder, *priors.values()))
        if atlas.info.judge is not None:
            names += f" and, to judge the images, “{html.plain(atlas.info.judge.get('id'))}”"
        st.caption(f"Generate loads {names}, which this atlas names; from the Hugging Face hub if they are not here.")
    with html.explained():
        _jobs(view)


def _jobs(view: View) -> None:
    """Show the form, the job that the URL names, and earlier drawings of the concept."""
    _form(view)
    job = queue().get(view.job) if view.job else None
    if view.job and job is None:
        st.caption("That job is unknown here (its results were cleared): generate it again.")
    elif job is not None and job.state == "done" and is_stress(job.result_dir):
        st.caption("The stress test stands above.")
    elif job is not None and job.state == "done":
        show_results(job, load_generation(job.result_dir))
    elif job is not None:
        progress(job.id)
    earlier = [(other, record) for other, record in finished_generations(queue(), session.atlas(), view.concept)
               if other.id != view.job][:EARLIER]  # fmt: skip
    if earlier:
        rows = [(other.id, how_drawn(record["parameters"])) for other, record in earlier]
        html.show("generate.earlier", key="earlier", rows=rows)


def _form(view: View) -> None:
    usual, priors = GenerationRequest, priors_of(session.atlas().info)
    with st.form("generate", border=False):
        method, strength = st.columns((2, 1))
        count, seed, steps, candidates, particles = st.columns(5)
        settings = {
            "method": method.selectbox("Method", OFFERED, format_func=METHODS.__getitem__, help=METHOD_HELP),
            "count": count.number_input("Images", 1, 16, usual.count),
            "seed": seed.number_input("Seed", 0, 2**31 - 1, 0),
            "steps": steps.number_input("Steps", 5, 250, usual.steps),
            "strength": strength.number_input("Strength", 0.0, 20.0, usual.strength, 0.1, help=STRENGTH_HELP),
            "candidates": candidates.number_input("Beginnings", 1, 128, usual.candidates, help=BEGINNINGS),
            "particles": particles.number_input("Particles", 1, 64, usual.particles, help=PARTICLES_HELP),
        }
        if len(priors) > 1:
            chosen = st.selectbox("Prior", list(priors), help=PRIOR_HELP)
            settings["prior"] = None if chosen == next(iter(priors)) else chosen
        if not st.form_submit_button("Generate", type="primary", icon=":material/auto_awesome:"):
            return
        try:
            request = GenerationRequest(view.concept, **settings)
            job = submit_generation(queue(), session.atlas(), request, me(), dtype())
        except BlindspotError as error:
            st.error(html.plain(error, code=True), icon=":material/error:")
            return
        session.change(job=job.id)
        st.rerun()


@html.fragment(run_every=0.5)
def progress(key: str) -> None:
    """Follow one job while it lives; the page runs again when it has ended."""
    job = queue().follow(key, me())
    if job is None or job.state == "done":
        st.rerun()
    if job.ended:
        if job.state == "failed":
            st.error(html.plain(job.error, code=True), icon=":material/error:")
        else:
            st.info("Cancelled.")
        if st.button("Clear", key="clear_job"):
            session.change(job=None)
            st.rerun()
        return
    st.progress(job.step / job.steps if job.steps else 0.0, text=progress_text(job))
    if job.preview:
        st.html(html.render("generate.preview", src=html.data_uri(job.preview, "jpeg")))
    if st.button("Cancel", icon=":material/close:", key="cancel_job") and not queue().cancel(key, me()):
        st.toast("Somebody else waits for these images too, so they are drawn all the same.")
        session.change(job=None)
        st.rerun()


def progress_text(job: Job) -> str:
    """Say where a job is: its place in the queue, or its step and the time left."""
    if job.state == "queued":
        return f"Waiting, {job.position} before this one" if job.position else "Starts next"
    if job.step == 0:
        return "Loading the models (once per start of the app)"
    left = "" if job.seconds_left is None else f", about {max(1, round(job.seconds_left))} s left"
    return f"Step {job.step} of {job.steps}{left}"


def show_results(job: Job, record: Mapping[str, Any]) -> None:
    """Show a finished job's images with their scores, then the best real images by the same score."""
    settings, images = record["parameters"], session.atlas().info.images
    sources = [html.data_uri(content, "png") for content in generated_images(job.result_dir, record)]
    judged = record.get("recognition") or {"label": "", "recognised": [], "missing": ""}
    below = verdicts(judged["recognised"] or [None] * len(sources), record["scores"], record["reference_score"])
    references = [real for real in record["references"] if 0 <= real["image"] < images]
    html.show(
        "generate.drawn", key="results", title=f"Drawn for concept {settings['concept']}",
        how=", ".join(filter(None, [how_drawn(settings), drawn_with(record), f"{record['seconds']:.1f} s"])),
        scores=record["scores"], best=record["reference_score"],
        images=list(zip(sources, record["scores"], record["codes_scores"], below, strict=True)),
        judged=recognition_sentence(judged["label"], judged["recognised"], judged.get("missing", "")),
        command=command(settings), job=job.id, references=references,
        tilt=tilt_sentence(record["tilt"]) if record.get("tilt") else None,
    )  # fmt: skip


def how_drawn(settings: Mapping[str, Any]) -> str:
    """Return method, seed, steps and strength in a few words."""
    settings = {"seed": 0, "steps": GenerationRequest.steps, "strength": GenerationRequest.strength, **settings}
    method = METHODS.get(name := stored_method(settings), name)
    return f"{method}, seed {settings['seed']}, {settings['steps']} steps, strength {settings['strength']:.3g}"


def show_gallery(rows: pd.DataFrame) -> None:
    """Show the images that were drawn into the atlas for a concept."""
    first, atlas = rows.iloc[0], session.atlas()
    known = {name: value for name, value in first.items() if isinstance(value, str)}
    priors, own = priors_of(atlas.info), stored_method(known) not in WITHOUT_PRIOR
    prior = priors.get(known["prior"]) if "prior" in known else next(iter(priors.values()), None)
    how = drawn_with({**known, "parameters": known, "prior": prior if own else None})
    sources = [html.data_uri(atlas.gallery_bytes(row.concept, row.rank), "webp") for row in rows.itertuples()]
    label = concept_label(atlas, [int(first["concept"])])
    seen = [None if label is None or pd.isna(one) else bool(one) for one in rows["recognised"]]
    below = verdicts(seen, rows["score"], first["reference_score"])
    html.show(
        "generate.drawn", key="gallery", title="Drawn with the atlas",
        how=", ".join(filter(None, [how_drawn(first), how])), scores=rows["score"].tolist(),
        images=list(zip(sources, rows["score"], rows["codes_score"], below, strict=True)),
        judged=recognition_sentence(label, seen) if label and None not in seen else "",
        best=first["reference_score"], command=command({**first, "count": len(rows)}),
    )  # fmt: skip


def command(parameters: Mapping[str, Any]) -> str:
    """Return the command that draws these images again."""
    path = session.atlas_path()
    return reproduction_command(
        parameters, path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name
    )
