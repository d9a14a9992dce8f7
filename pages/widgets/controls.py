"""The controls that change a view: model, search, delta settings, filters. Each one writes the URL and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from engine.atlas.schema import REAL
from engine.reports.selection import against
from pages.widgets import session
from pages.widgets.html import plain
from pages.widgets.selection import named_clusters
from pages.widgets.session import LONGEST_TEXT, MARGINS, MOST_MODELS, QUANTITIES, SIDES, TARGETS, View

COLOURS = {"delta": "Delta", "relative": "Relative", "frequency": "Frequency", "cluster": "Cluster"}
ESTIMATORS = {"gap": "Gap", "relative": "Relative", "share": "Share", "standardised": "Standardised"}
FORMULAS = {
    "gap": r"\delta_k = \sigma\!\left(\frac{E_k^{\mathrm{model}} - E_k^{\mathrm{real}}}{T}\right)",
    "relative": r"\delta_k = \sigma\!\left(\frac{1}{T}\,\frac{E_k^{\mathrm{model}} - E_k^{\mathrm{real}}}"
    r"{E_k^{\mathrm{model}} + E_k^{\mathrm{real}}}\right)",
    "share": r"\delta_k = \sigma\!\left(\tfrac{1}{T}\log\frac{E_k^{\mathrm{model}}}{E_k^{\mathrm{real}}}\right)"
    r"\;\overset{T=1}{=}\;\frac{E_k^{\mathrm{model}}}{E_k^{\mathrm{model}} + E_k^{\mathrm{real}}}",
    "standardised": r"\delta_k = \sigma\!\left(\frac{E_k^{\mathrm{model}} - E_k^{\mathrm{real}}}{T\, s_k}\right),"
    r"\quad s_k \text{ pooled standard deviation}",
}
WHY = {
    "gap": "The paper's estimator. In units of energy, so frequent, strong concepts saturate first.",
    "relative": "Free of units and bounded: what the authors correlate between models.",
    "share": "The share of the concept's energy that is the model's: the same on any scale, kind to rare concepts.",
    "standardised": "The gap in standard deviations of an image's energy (Cohen's d): an effect size.",
}
REFERENCE_HELP = (
    "Choose a model to see what others draw more or less often than it does, such as a model before fine-tuning. δ, "
    "its interval and q are then against that model's images, paired where both drew the same caption."
)
FREQUENCIES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SIGNIFICANCE = (1.0, 0.1, 0.05, 0.01, 0.001)


def _changed(name: str, key: str) -> None:
    value = st.session_state[key]
    session.change(**{name: tuple(value) if isinstance(value, list) else value})


def _bind(name: str, value: object) -> dict:
    """Return the key and the callback that tie a widget to a parameter of the URL."""
    key = session.bound(name, value)
    return {"key": key, "on_change": _changed, "args": (name, key)}


def _choose(label: str, name: str, value: str, options: Sequence[str], names: Mapping[str, str], **more: str) -> None:
    """Offer a few options beside each other, one of them always chosen."""
    st.segmented_control(label, options, format_func=names.get, required=True, **_bind(name, value), **more)


def model_choice(view: View) -> None:
    """Choose the model whose map and card are shown."""
    models = session.atlas().models
    if len(models) <= 5:
        _choose("Model", "model", view.model, models, {model: plain(model) for model in models})
    else:
        st.selectbox("Model", models, **_bind("model", view.model))


def caption_search(view: View) -> None:
    """Search the captions of pairs."""
    st.text_input(
        "Captions", placeholder="Search captions", icon=":material/search:", label_visibility="collapsed",
        max_chars=LONGEST_TEXT, **_bind("caption", view.caption),
    )  # fmt: skip


def models_choice(view: View) -> None:
    """Choose up to four models to compare with the view's reference."""
    bound = _bind("models", list(view.models))
    st.multiselect("Models, up to four", against(session.atlas(), view), max_selections=MOST_MODELS, **bound)


def reference_choice(view: View) -> None:
    """Choose what the models are compared with: the real images, or one of the models."""
    sources = [source.name for source in session.atlas().sources]
    st.selectbox(
        "Compared with", sources, format_func=lambda name: "real images" if name == REAL else plain(name),
        help=REFERENCE_HELP, **_bind("reference", view.reference),
    )  # fmt: skip


def two_models_choice(chosen: tuple[str, str], models: list[str]) -> None:
    """Choose two of `models` in their order, before and after; choosing the other one swaps them."""
    for place, (column, label) in enumerate(zip(st.columns(2), ("Before", "After"), strict=True)):
        key = session.bound(f"models_{place}", chosen[place])
        column.selectbox(label, models, key=key, on_change=_model_placed, args=(key, place, chosen))


def _model_placed(key: str, place: int, chosen: tuple[str, str]) -> None:
    model, other = st.session_state[key], chosen[1 - place]
    other = chosen[place] if model == other else other
    session.change(models=(model, other) if place == 0 else (other, model))


def colour_choice(view: View) -> None:
    """Choose what colour means on the map."""
    _choose("Colour", "colour", view.colour, session.known().colours, COLOURS)


def quantity_choice(view: View) -> None:
    """Choose what models are correlated on."""
    _choose("Quantity", "quantity", view.quantity, QUANTITIES, {"relative": "Relative gap", "delta": "Delta"})


def margin_choice(view: View) -> None:
    """Choose how clearly other models must lack a blindspot of one model alone."""
    label = "Margin: how far inside the threshold every other model must be"
    st.slider(label, *MARGINS, step=0.05, **_bind("margin", view.margin))


def target_choice(view: View) -> None:
    """Choose the mean score that threshold and tilt are held at."""
    st.slider("Mean score of both laws", *TARGETS, step=0.1, format="%.1f", **_bind("target", view.target))


def side_choice(view: View) -> None:
    """Choose which end of delta the list shows."""
    names = {side: side.capitalize() for side in SIDES}
    _choose("Top differences", "side", view.side, SIDES, names, label_visibility="collapsed")


def search_box(view: View) -> None:
    """Find concepts by id, label or words, all of which must fit; the found ones are the selection."""

    def go() -> None:
        session.change(text=st.session_state["w_text"].strip()[:LONGEST_TEXT], concept=None, image=None, job=None)

    st.text_input(
        "Search", key=session.bound("text", view.text), on_change=go, max_chars=LONGEST_TEXT, type="search",
        placeholder="Search a word, a label or an id", icon=":material/search:", autocomplete="off",
    )  # fmt: skip


def delta_settings(view: View) -> None:
    """Choose estimator, temperature and thresholds, with their formula."""

    def estimator_changed() -> None:
        estimator = st.session_state["w_estimator"]
        session.change(estimator=estimator, temperature=session.known().temperatures[estimator])

    with st.popover("Delta settings", icon=":material/balance:", width="stretch"):
        st.segmented_control(
            "Estimator", list(session.known().temperatures), format_func=ESTIMATORS.get, required=True,
            key=session.bound("estimator", view.estimator), on_change=estimator_changed,
        )  # fmt: skip
        st.latex(FORMULAS[view.estimator])
        st.caption(WHY[view.estimator])
        st.slider(
            "Temperature T: how large a difference must be to count", 0.05, max(4.0, view.temperature), step=0.05,
            **_bind("temperature", view.temperature),
        )  # fmt: skip
        low, high = st.columns(2)
        low.slider("Suppressed below", 0.01, 0.5, step=0.01, **_bind("low", max(0.01, view.low)))
        high.slider("Exaggerated above", 0.5, 0.99, step=0.01, **_bind("high", min(0.99, view.high)))
        st.caption(
            "E is a concept's mean energy per image: the sum of its codes over all tokens. δ = 0.5: as often as in "
            "reality. The paper has T = 0.8 and thresholds 0.1 and 0.9; an atlas may come with others."
        )


def filters(view: View) -> None:
    """Choose which concepts stay bright on the map and in the lists."""
    active = (len(view.status) > 0) + (view.frequency > 0) + (view.q < 1) + (len(view.cluster) > 0)
    with st.popover(f"Filters ({active})" if active else "Filters", icon=":material/filter_alt:", width="stretch"):
        statuses = ["suppressed", "neutral", "exaggerated"]
        st.pills("Status", statuses, selection_mode="multi", **_bind("status", list(view.status)))
        if session.atlas().info.published:
            st.caption("Others turn grey on the map, so that the shape stays. Frequencies and q were not published.")
            return
        st.select_slider(
            "Fires in at least this share of real images", sorted({*FREQUENCIES, view.frequency}),
            format_func=lambda share: f"{100 * share:g} %", **_bind("frequency", view.frequency),
        )  # fmt: skip
        st.select_slider(
            "False discovery rate q at most", sorted({*SIGNIFICANCE, view.q}, reverse=True),
            format_func=lambda q: "any" if q == 1 else f"{q:g}", **_bind("q", view.q),
        )  # fmt: skip
        if session.known().clusters:
            names = named_clusters(session.atlas())
            st.multiselect(
                "Cluster", session.known().clusters, format_func=lambda one: plain(names[one]),
                **_bind("cluster", list(view.cluster)),
            )  # fmt: skip
        st.caption("Others turn grey on the map, so that the shape stays. q is Benjamini-Hochberg over live concepts.")
