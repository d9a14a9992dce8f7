"""Dictionary: how good the dictionary is whose concepts all other pages speak of, and which of its atoms to doubt."""

from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.figures import dictionary as figures
from pages.widgets import data, lists, markup, url
from pages.widgets.live import asset, link, live
from pages.widgets.plot import caption, plot

LISTED = 6
KINDS = {
    "archetypal": "An RA-SAE",
    "topk": "A TopK dictionary",
    "batchtopk": "A BatchTopK dictionary",
    "transcoder": "A transcoder",
    "threshold": "A thresholded dictionary",
}
MISSING = """
This atlas has no report of its dictionary. Run its recipe once more, `python -m precompute run RECIPE --out {path}`:
only the stages *report* and *assemble* are new. For stability across seeds add
`--set dictionary.report_seeds=3`, which trains two more dictionaries.
"""
UNPUBLISHED = """
This atlas holds published statistics of {concepts} concepts. Their dictionary is not part of them, so nothing can be
said here about its atoms and its fit.
"""


def introduction(summary: dict[str, Any]) -> str:
    """Return what kind of dictionary this is and what it was measured on."""
    info = data.current().info
    sizes = f"{info.concepts:,} concepts in {info.dictionary.get('dim', '?')} dimensions"
    kind = KINDS.get(str(info.dictionary.get("kind")), "A sparse dictionary")
    return (
        f'<p class="ba-note">{escape(kind)} of {escape(sizes)} for tokens of {escape(data.encoder_name())}, '
        f"measured on {summary['tokens']:,} tokens of the real images.</p>"
    )


def headline(summary: dict[str, Any]) -> str:
    """Return the six numbers by which dictionaries are compared, each with one line of what it says."""
    aim = data.current().info.dictionary.get("sparsity", "?")
    hull, stable = summary["hull"], summary["stability"]
    points = "the dictionary's candidates" if hull["own_points"] else f"{hull['points']:,} centroids of the tokens"
    stability, seeds = "–", "not measured: needs <code>report_seeds</code> of 2 or more"
    if stable:
        stability, seeds = markup.number(stable["mean"]), f"mean cosine to the match from {len(stable['pairs'])} seeds"
    numbers = (
        ("R²", markup.number(summary["r2"]), f"of the variance is rebuilt from the codes; FVU {summary['fvu']:.3f}"),
        ("L0", markup.number(summary["l0"], 2), f"concepts active per token; the aim is {aim}"),
        ("Dead", markup.percent(summary["dead_share"]), "of the concepts fire on no real token"),
        ("Coherence", markup.number(summary["coherence"]), "mean |cosine| of an atom to the one most like it"),
        ("Distance", markup.number(hull["distance"]), f"of atoms from the hull of {points}, in its radius"),
        ("Stability", stability, seeds),
    )
    tiles = "".join(
        f'<div><strong>{name}</strong><b>{value}</b><span class="ba-note">{what}</span></div>'
        for name, value, what in numbers
    )
    return f'<div class="ba-figures">{tiles}</div>'


def chip(concept: int) -> str:
    """Return a concept as a chip that leads to its card."""
    label = data.current().concepts["label"].at[concept]
    image = lists.best_image(concept, "real")
    picture = "" if image is None else f'<img src="{asset(f"thumb/{image}.webp")}" alt="" loading="lazy">'
    inner = f"{picture}{markup.name_of(concept, label)}"
    return link({"concept": concept}, inner, css="ba-chip", page="concept_map", title=f"Concept {concept}")


def ranked(title: str, rows: Iterable[tuple[float, tuple[int, ...]]], digits: int = 2) -> str:
    """Return a short list: a number, and the concepts that have it."""
    lines = "".join(
        f"<span>{markup.number(value, digits)}</span><div>{''.join(chip(int(concept)) for concept in concepts)}</div>"
        for value, concepts in rows
    )
    return f'<section><h3>{escape(title)}</h3><div class="ba-ranked">{lines}</div></section>'


def shown(figure: go.Figure, key: str) -> None:
    """Show a small plot with its title and reading line."""
    live(caption(figure), key=f"how_{key}")
    plot(figure, key=key)


def extremes(concepts: pd.DataFrame, column: str, ascending: bool) -> list[tuple[float, tuple[int, ...]]]:
    """Return the first concepts by a column."""
    rows = concepts.sort_values(column, ascending=ascending, kind="stable").head(LISTED)
    return [(value, (concept,)) for concept, value in rows[column].items()]


def atoms(summary: dict[str, Any], concepts: pd.DataFrame) -> None:
    """Coherence, distance and stability, each with the live concepts at its ends."""
    dead = data.current().concepts["dead"].to_numpy(bool)
    alive = concepts[~dead]
    stable = summary["stability"]
    columns = st.columns(3 if stable else 2, gap="large")
    with columns[0]:
        shown(figures.coherence_histogram(concepts["coherence"].to_numpy()), "coherence")
        both = alive[~dead[alive["nearest"].to_numpy()]]
        pairs = figures.most_alike(both, LISTED).itertuples()
        live(ranked("Most alike pairs", ((pair.coherence, (pair.a, pair.b)) for pair in pairs)), key="alike")
    with columns[1]:
        hull = summary["hull"]
        distance = concepts["hull_distance"].to_numpy()
        shown(figures.hull_histogram(distance, points=hull["points"], own=hull["own_points"]), "hull")
        live(ranked("Furthest from the data", extremes(alive, "hull_distance", False), 3), key="far")
    if stable:
        with columns[2]:
            values = concepts["stability"].to_numpy()
            shown(figures.stability_histogram(values, seeds=len(stable["pairs"])), "stability")
            live(
                ranked("Least stable", extremes(alive, "stability", True))
                + ranked("Most stable", extremes(alive, "stability", False)),
                key="stable",
            )


url.current("dictionary", ("model", "estimator", "temperature", "low", "high"))
st.title("Dictionary", anchor=False)
report = data.current().dictionary_report()
if report is None and data.current().info.published:
    st.info(UNPUBLISHED.format(concepts=f"{data.current().count:,}"))
elif report is None:
    st.info(MISSING.format(path=data.atlas_path()))
else:
    live(introduction(report.summary) + headline(report.summary), key="headline")
    st.header("How it is used", anchor="use", divider="gray")
    left, right = st.columns(2, gap="large")
    with left:
        frequency = report.concepts["frequency"].to_numpy()
        shown(figures.frequency_histogram(frequency, tokens=report.summary["tokens"]), "frequency")
    with right:
        shown(figures.l0_histogram(report.summary["l0_counts"]), "l0")
    st.header("What its atoms are", anchor="atoms", divider="gray")
    atoms(*report)
