"""Generate: a form, its job and results; the same on a concept's card and on a page of its own."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import streamlit as st

from engine.atlas.schema import priors_of
from engine.errors import BlindspotError
from engine.reports.samplers import METHODS
from engine.samplers.generation import GenerationRequest, require_alive, warm_up
from engine.samplers.links import DEFAULTS, check_limits, parse_concepts, parse_settings, settings_text
from engine.samplers.records import submit_generation
from engine.samplers.registry import SAMPLERS
from engine.samplers.sweeps import submit_sweep
from engine.stress.records import is_stress
from pages.widgets import drawings, html, jobs, running, session, shelf
from pages.widgets.session import View

METHOD_HELP = (
    "Energy guidance reaches the score of real images; its strength is no inverse temperature. EnergyDPS is the "
    "paper's Algorithm 1; its particle filter converges to the tilt p exp(βs). Retrieval shows real images. MACO, "
    "optimisation and accentuation climb the score without a prior. Soft prompts need a prior that reads text."
)
STRENGTH_HELP = (
    "Energy guidance: a push, as a share of a step's own noise. EnergyDPS and its particle filter: β is 32 times this, "
    "over the score from which an image is not pushed any more. 0: the prior alone."
)
AIMS = {
    0.0: "this strength",
    0.5: "half the real images' score",
    0.75: "three quarters of it",
    1.0: "the real images' score",
    1.25: "a quarter more than it",
}
"""What a drawing aims at: a strength, or a share of the mean score of the four best real images."""
AIM_HELP = (
    "A score: the strength is looked for whose mean score that is, starting from the strength above. So drawings of "
    "several methods are compared fairly; it takes several times as long."
)
OTHERS_HELP = (
    "A weighted set is drawn: numbers of further concepts, each with a weight where it is not 1, such as 54, 60:0.5. "
    "This concept has weight 1; to give it another, name it here, too. Negative weights push away."
)
SWEEP_HELP = "Draws at 0, 0.5, 1 and 2 times this strength, one job: what the push changes."
LADDER_HELP = "Draws at a half, three quarters and all of the best real images' score, one job: each strength is found."
BEGINNINGS = (
    "Energy guidance: each image begins as so many; those that promise the concept go on, the last is guided. More "
    "take longer and show the concept more often."
)
PRIOR_HELP = "The diffusion model that images are drawn from; retrieval shows real images and has none."
PARTICLES_HELP = "EnergyDPS, particle filter: particles behind each image."


@st.cache_resource(show_spinner=False)
def _warmed(path: Path) -> Thread:
    """Load the demo atlas's models in the background, once, while its first card is being read.

    Another atlas's models are loaded, and fetched from a hub, only when a person asks for a drawing.
    """
    atlas = session.atlas()

    def load() -> None:
        with suppress(BlindspotError):  # the drawing itself will say it to the person
            warm_up(atlas, jobs.device(), jobs.dtype())
        gc.collect()
        gc.freeze()  # torch and the models stay for good: no collection looks through them again, half a second each

    thread = Thread(target=load, name=f"warm-up of {path}", daemon=True)
    thread.start()
    return thread


def generate(view: View, titled: bool = True) -> None:
    """Show the atlas's own drawings of the view's concept, the form, the job that the URL names and earlier results."""
    if titled:
        st.subheader("Generate", anchor=False)
    atlas = session.atlas()
    gallery = atlas.gallery(view.concept)
    if len(gallery):
        drawings.show_gallery(gallery)
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
    job = jobs.queue().get(view.job) if view.job else None
    _form(view, view.draw or drawings.settings_of(job))
    if view.job and job is None and view.draw:
        st.caption("These images are not kept on this machine: press Generate to draw the same ones again.")
    elif view.job and job is None:
        st.caption("That job is unknown here (its results were cleared): generate it again.")
    elif job is not None and job.state == "done" and is_stress(job.result_dir):
        st.caption("The stress test stands above.")
    elif job is not None and job.state == "done":
        drawings.show_finished(jobs.queue(), job, view)
    elif job is not None:
        jobs.progress(job.id)
    drawings.show_earlier(jobs.queue(), view)


def _form(view: View, draw: str) -> None:
    """Ask for a drawing, a sweep or a ladder; the settings of a link or of the drawing that is shown are filled in."""
    usual, priors, asked = DEFAULTS, priors_of(session.atlas().info), parse_settings(draw) or {}
    usual = {**usual, **asked}
    with st.form("generate", border=False):
        method, strength = st.columns((2, 1))
        count, seed, steps, candidates, particles = st.columns(5)
        methods = list(SAMPLERS)
        settings: dict[str, Any] = {
            "method": method.selectbox(
                "Method", methods, methods.index(usual["method"]), format_func=METHODS.__getitem__, help=METHOD_HELP
            ),
            "count": count.number_input("Images", value=usual["count"]),
            "seed": seed.number_input("Seed", value=usual["seed"]),
            "steps": steps.number_input("Steps", value=usual["steps"]),
            "strength": strength.number_input("Strength", value=usual["strength"], step=0.1, help=STRENGTH_HELP),
            "candidates": candidates.number_input("Beginnings", value=usual["candidates"], help=BEGINNINGS),
            "particles": particles.number_input("Particles", value=usual["particles"], help=PARTICLES_HELP),
        }
        others, aim = st.columns(2)
        with_text = others.text_input(
            "With other concepts",
            asked.get("with", ""),
            max_chars=200,
            placeholder=f"besides {view.concept}, such as 54, 60:0.5",
            help=OTHERS_HELP,
        )
        aims = sorted({*AIMS, level := asked.get("level", 1.0) if asked.get("match") else 0.0})
        level = aim.selectbox(
            "Aim at", aims, aims.index(level), format_func=lambda one: AIMS.get(one, f"{one:g} × it"), help=AIM_HELP
        )
        settings |= {"match": level > 0, "level": level or 1.0}
        if len(priors) > 1:
            names = list(priors)
            place = names.index(asked["prior"]) if asked.get("prior") in names else 0
            chosen = st.selectbox("Prior", names, place, help=PRIOR_HELP)
            settings["prior"] = None if chosen == names[0] else chosen
        with st.container(horizontal=True):
            pressed = {
                "one": st.form_submit_button("Generate", type="primary", icon=":material/auto_awesome:"),
                "strength": st.form_submit_button("Sweep the strength", help=SWEEP_HELP),
                "level": st.form_submit_button("Activation ladder", help=LADDER_HELP),
            }
    if any(pressed.values()):
        _submit(view, settings, with_text, asked.get("weight", 1.0), next(kind for kind, yes in pressed.items() if yes))


def _submit(view: View, settings: dict[str, Any], others: str, weight: float, kind: str) -> None:
    """Queue what the form asks for and put its link into the URL, or say in a sentence what cannot be."""
    atlas, concept = session.atlas(), view.concept or 0
    try:
        check_limits(settings)
        further, weights = parse_concepts(others, weight)
        if concept in further:  # names its own weight
            place = further.index(concept) + 1
            weights = weights or (1.0,) * (len(further) + 1)
            weights = (weights[place], *(one for i, one in enumerate(weights[1:], 1) if i != place))
            further = tuple(other for other in further if other != concept)
        require_alive(atlas, further)
        request = GenerationRequest(concept, others=further, weights=weights, **settings)
        name = html.title_of(concept, atlas.shown_labels()[concept])
        if kind == "one":
            job, what = submit_generation(jobs.queue(), atlas, request, jobs.me(), jobs.dtype()), f"{name} · {concept}"
        else:
            sweep: Literal["strength", "level"] = "level" if kind == "level" else "strength"
            job = submit_sweep(jobs.queue(), atlas, request, sweep, jobs.me(), jobs.dtype())
            what = f"{name} · {concept}, {'ladder' if kind == 'level' else 'sweep'}"
    except BlindspotError as error:
        st.error(html.plain(error, code=True), icon=":material/error:")
        return
    draw = settings_text(request)
    running.announce(job.id, f"Drawing {what}", {"model": view.model, "concept": concept, "job": job.id, "draw": draw})
    session.change(job=job.id, draw=draw, beside=())
    st.rerun()
