"""Overview: what this atlas is, and per model what it leaves out and what it overdraws."""

from html import escape

import streamlit as st

from engine.atlas import AtlasInfo
from engine.figures.distribution import HISTOGRAM_HOW, delta_histogram
from engine.figures.tables import most_different, summarise
from pages.widgets import controls, data, lists, state, url
from pages.widgets.live import live
from pages.widgets.plot import plot

KEYS = ("model", "estimator", "temperature", "low", "high")
CARDS = 6
PAIRINGS = {
    "generated": "drawn from the real captions",
    "caption": "paired by caption",
    "stem": "paired by file name",
    "none": "unpaired",
}
DICTIONARIES = {
    "archetypal": "an RA-SAE",
    "topk": "a TopK",
    "batchtopk": "a BatchTopK",
    "transcoder": "a transcoder",
    "threshold": "a thresholded",
}


def introduction() -> str:
    """Return what was compared with what, seen through which encoder and dictionary."""
    info = data.current().info
    if info.published:
        return published(info)
    encoder, dictionary = info.encoder, info.dictionary
    sources = "".join(
        f"<span><b>{escape(source.label or source.name)}</b> {source.images:,} images"
        f"{'' if source.kind == 'real' else ', ' + PAIRINGS.get(source.pairing, source.pairing)}</span>"
        for source in info.sources
    )
    grid = "×".join(str(side) for side in info.grid)
    depth = "last layer" if encoder.get("layer") is None else f"layer {encoder['layer']}"
    kind = DICTIONARIES.get(dictionary.get("kind", ""), "a sparse")
    facts = (
        f"Seen through {data.encoder_name()} ({depth}, {grid} patches) and {kind} "
        f"dictionary of {info.concepts:,} concepts, {dictionary.get('sparsity', '?')} active per token."
    )
    described = f"<p>{escape(info.description)}</p>" if info.description else ""
    return f'{described}<div class="ba-sources">{sources}</div><p class="ba-note">{escape(facts)}</p>'


def published(info: AtlasInfo) -> str:
    """Return where an atlas of published statistics comes from and what it cannot show."""
    models = ", ".join(escape(source.label or source.name) for source in info.sources[1:])
    files = ", ".join(escape(entry["file"]) for entry in info.origin["files"])
    missing = escape("; ".join(info.origin["missing"]))
    return (
        f"<p>{escape(info.description)}</p>"
        f'<div class="ba-sources"><span><b>{models}</b> against real images</span>'
        f"<span><b>{info.concepts:,}</b> concepts</span></div>"
        f'<p class="ba-note">Imported from {files}. Not published, so not shown: {missing}.</p>'
    )


def model_section(model: str, view: state.View) -> None:
    """One model: its numbers, its histogram, and its twelve most extreme concepts."""
    table = data.table(view, model)
    basis = data.basis(view, model)
    figure = delta_histogram(table.loc[~table["dead"], "delta"], model=model, basis=basis, height=200)
    st.header(data.current().info.source(model).label or model, anchor=model, divider="gray")
    numbers, spread = st.columns([2, 3], gap="large", vertical_alignment="center")
    with numbers:
        live(lists.strip(summarise(table, view.low, view.high), basis.sentence(), HISTOGRAM_HOW), key=f"strip_{model}")
    with spread:
        plot(figure, key=f"histogram_{model}")
    halves = "".join(
        f'<div><h3>{name} {lists.origin(side, model)}</h3><div class="ba-cards">'
        f"{lists.cards(most_different(table, side, CARDS), model, side=side, page='concept_map')}</div></div>"
        for side, name in (("suppressed", "Most suppressed"), ("exaggerated", "Most exaggerated"))
    )
    first = "" if data.current().info.published else f'<p class="ba-note">{lists.CERTAIN_FIRST}</p>'
    live(f'<div class="ba-split">{halves}</div>{first}', key=f"cards_{model}")


view = url.current("overview", KEYS)
title, honest = st.columns([5, 1], vertical_alignment="bottom")
title.title(data.current().info.name or "Blindspot Atlas", anchor=False)
with honest:
    controls.honest_delta(view)
live(introduction(), key="introduction")
for name in data.current().models:
    model_section(name, view)
