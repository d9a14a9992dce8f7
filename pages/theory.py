"""Theory: what it costs to ask a prior for more of a concept, exactly, and how near samplers come to the best way."""

from html import escape

import pandas as pd
import streamlit as st

from engine.figures.theory import LAWS
from pages.exhibits import named
from pages.exhibits.theory import COMMAND, sample_count
from pages.widgets import controls, state, url
from pages.widgets.exhibit import missing, show, takeaway
from pages.widgets.live import live

KEYS = ("target",)
INTRODUCTION = (
    "Both laws below have the same mean score. The threshold keeps only images that score above a cut; the tilt "
    "weighs every image by exp(βs), which is the nearest law to the prior with that mean. The prior here is a mixture "
    "of four Gaussians in the plane and the score a function of the angle, so that every number is exact."
)
COLUMNS = (
    ("boundary_mass", "boundary mass", "share within 0.05 above the cut"),
    ("tv_prior", "TV to the prior", "share of the mass that is elsewhere"),
    ("tv_step", "TV to a step beyond", "between this mean and 0.08 more"),
    ("kl_prior", "KL to the prior", "nats"),
    ("tv_speed", "TV speed", "per unit of mean score"),
)


@st.fragment
def one_target() -> None:
    """Both laws at the mean score that a person chooses."""
    view = url.current("theory", KEYS)
    controls.target_choice(view)
    planes, table = st.columns([11, 9], gap="large")
    with planes:
        show("theory-planes", view)
    with table:
        numbers(view)


def numbers(view: state.View) -> None:
    """The biases of both laws side by side."""
    found = named("theory-numbers", view)
    hard, tilt = found.exhibit.table.to_dict("records")
    lines = "".join(
        f"<tr><td>{escape(name)}<br><small>{escape(unit)}</small></td><td>{hard[column]:.4f}</td>"
        f"<td>{tilt[column]:.4f}</td></tr>"
        for column, name, unit in COLUMNS
    )
    heads = f"<th></th><th>{escape(LAWS['hard'][0])}</th><th>{escape(LAWS['tilt'][0])}</th>"
    knobs = f"<tr><td>set to</td><td>m' = {hard['knob']:.4f}</td><td>β = {tilt['knob']:.4f}</td></tr>"
    live(
        f'{takeaway(found)}<div class="ba-caption"><b>In numbers</b> <span>exact</span>'
        '<div class="ba-note">Lower is better everywhere: less of the prior is lost, and a slightly different target '
        'shows nearly the same images.</div></div><div class="ba-scroll">'
        f'<table class="ba-table"><tr>{heads}</tr>{knobs}{lines}</table></div>',
        key="numbers",
    )


def samplers(view: state.View) -> None:
    """What samplers draw on the same mixture."""
    st.header("What samplers draw", anchor="samplers", divider="gray")
    if missing("theory-samplers", view):
        return
    figure, table = st.columns([9, 11], gap="large")
    with figure:
        show("theory-samplers", view)
    with table:
        rows = named("theory-samplers", view).exhibit.table
        live(samplers_table(rows), key="samplers")


def samplers_table(rows: pd.DataFrame) -> str:
    """Return the samplers' means and distances: a row per method, three columns per mean score."""
    targets = sorted(set(rows["target"]))
    tops = "".join(f'<th colspan="3">mean score {target:g}, β {beta:.4f}</th>' for target, beta in _betas(rows))
    heads = "<th>mean</th><th>KL to tilt</th><th>to prior</th>" * len(targets)
    body = ""
    for method, some in rows.groupby("method", sort=False):
        found = some.set_index("target")
        cells = "".join(
            f"<td>{found.at[target, 'mean']:.2f}</td><td>{distance(found.at[target, 'kl_tilt'])}</td>"
            f"<td>{distance(found.at[target, 'kl_prior'])}</td>"
            for target in targets
        )
        body += f"<tr><td><b>{escape(method)}</b></td>{cells}</tr>"
    samples = sample_count(rows)
    how = (
        f"KL in nats, less what chance adds to the n = {samples:,} samples of EnergyDPS and of SMC; retrieval keeps "
        "the best of a pool of 20,000, optimisation climbs from as many starts. The denoiser is exact, so distances "
        "are the samplers' own. “Calibrated”, retrieval and optimisation have their knob set to reach the mean score; "
        "EnergyDPS and SMC (particles of a filter) keep the tilt's β. Chance, about 0.0002, may take a KL below 0. "
        f"Made with {COMMAND} --samples {samples}."
    )
    return (
        f'<div class="ba-caption"><b>In numbers</b><div class="ba-note">{escape(how)}</div></div>'
        f'<div class="ba-scroll"><table class="ba-table"><tr><th></th>{tops}</tr><tr><th></th>{heads}</tr>{body}'
        "</table></div>"
    )


def _betas(rows: pd.DataFrame) -> list[tuple[float, float]]:
    return [(target, some["beta"].iloc[0]) for target, some in rows.groupby("target")]


def distance(kl: float) -> str:
    """Format a KL; 0 only where it is exact."""
    return f"{kl:.4f}" if kl else "0"


view = url.current("theory", KEYS)
st.title("Theory", anchor=False)
live(f'<p class="ba-note">{escape(INTRODUCTION)}</p>', key="introduction")
one_target()
st.header("At every mean score", anchor="curves", divider="gray")
left, right = st.columns([11, 9], gap="large")
with left:
    show("theory-biases", view)
with right:
    show("theory-speeds", view)
samplers(view)
