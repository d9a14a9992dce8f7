"""What a page starts from: the atlas that this process shows, and the view that the browser's address describes.

The URL is the truth. One frozen `View` is read from it, checked against the atlas, and written back. Reading never
fails: a value that does not fit (an unknown model, a concept out of range, a temperature of "abc") falls back to its
default and leaves the URL when the view is written.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine.atlas import Atlas, checks
from engine.atlas.loading import header_state
from engine.atlas.schema import REAL
from engine.blindspots.delta import ESTIMATORS
from engine.errors import BlindspotError
from engine.figures.style import Basis
from engine.figures.tables import STATUSES
from engine.jobs import JOB_ID
from engine.ratings.store import LONGEST_RATER, NAME
from engine.reports import ReportView
from engine.reports.base import view_basis, view_table
from engine.reports.selection import SELECTION, SORTS, delta_ranges, pack_concepts, select, unpack_concepts
from engine.reports.theory import TARGETS
from engine.samplers.links import parse_settings
from pages.widgets import shelf
from pages.widgets.shelf import atlas_path

COLOURS = ("delta", "relative", "frequency", "cluster")
SIDES = ("suppressed", "exaggerated", "both")
QUANTITIES = ("relative", "delta")
MARGINS = (0.0, 0.4)
"""Margins on offer: from any to the neutral delta at the usual thresholds."""
MOST_MODELS = 4
MOST_BESIDE = 3
"""Drawings beside another one."""
MOST_RANGES = 6
"""Ranges of delta in a selection."""
LONGEST_TEXT = 80
SETTINGS = ("model", "estimator", "temperature", "low", "high")
"""What every link to another page takes along."""
SHARED = (*SETTINGS, "concept", "study", "rater", "models", "reference", *SELECTION)
"""What follows a person from page to page."""
NARROWING = (*SELECTION, "sort", "start")
"""What the list of a selection depends on; a page that shows one has these in its address."""
CACHE, PAGE, VERSION = "view_cache", "view_page", "view_version"
"""Session keys: the parameters of `SHARED` as last shown, the page that showed them, and the atlas's version."""


@dataclass(frozen=True)
class Known:
    """What the atlas has, against which a URL is checked."""

    models: tuple[str, ...]
    concepts: int
    images: int
    estimator: str = "gap"
    temperatures: Mapping[str, float] = field(default_factory=lambda: {"gap": 0.8})
    """Default temperature of every estimator on offer."""
    low: float = 0.1
    high: float = 0.9
    colours: tuple[str, ...] = COLOURS
    """What a map's colour may mean: an atlas of published statistics has neither frequencies nor clusters."""
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True)
class View(ReportView):
    """Everything that a link must bring back: what reports depend on, and what else a page shows."""

    concept: int | None = None
    colour: str = "delta"
    start: int = 0
    """Place in the list of the selection."""
    axes: tuple[str, ...] = ()
    """The two models of the scatter, of those compared; empty: the first two."""
    side: str = "suppressed"
    top: int = 12
    job: str | None = None
    draw: str = ""
    """Settings of a drawing (`engine.samplers.links`): what its link can be drawn again with."""
    beside: tuple[str, ...] = ()
    """Finished drawings to show beside the job's."""
    study: str | None = None
    """A rating study beside the atlas."""
    rater: str | None = None
    caption: str = ""
    """Words that the captions of listed pairs have."""
    upload: str | None = None
    """Key of an image somebody brought (`pages.widgets.uploads`)."""


def default_view(known: Known) -> View:
    """Return the view of an empty URL."""
    return View(
        model=known.models[0],
        estimator=known.estimator,
        temperature=known.temperatures[known.estimator],
        low=known.low,
        high=known.high,
        models=known.models[:2],
    )


def read(params: Mapping[str, str], known: Known) -> View:
    """Read a view from query parameters (lists are comma separated); values that do not fit become defaults."""
    base = default_view(known)
    parsed = {name: parse(str(params[name])) for name, parse in _parsers(known).items() if name in params}
    found: dict[str, Any] = {name: value for name, value in parsed.items() if value is not None}
    found.setdefault("temperature", known.temperatures[found.get("estimator", base.estimator)])
    view = replace(base, **found)
    return view if view.low < view.high else replace(view, low=base.low, high=base.high)


def misfits(params: Mapping[str, str], known: Known) -> dict[str, str]:
    """Return the parameters whose values do not fit, and what they say; of a list, its unknown parts."""
    wrong = {}
    for name, parse in _parsers(known).items():
        text = str(params.get(name, ""))
        found = parse(text)
        if isinstance(found, tuple):
            text = ",".join(part for part in text.split(",") if part not in found)
        if text and (found is None or isinstance(found, tuple)):
            wrong[name] = text
    return wrong


def write(view: View, known: Known, keys: tuple[str, ...] | None = None) -> dict[str, str]:
    """Return the query parameters of a view: only what differs from the defaults, only `keys` if given."""
    base = replace(default_view(known), temperature=known.temperatures[view.estimator])
    names = [entry.name for entry in fields(View) if keys is None or entry.name in keys]
    changed = {name: getattr(view, name) for name in names if getattr(view, name) != getattr(base, name)}
    return {name: ",".join(value) if isinstance(value, tuple) else _text(value) for name, value in changed.items()}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parsers(known: Known) -> dict[str, Callable[[str], Any]]:
    """Return, per parameter, a parser that gives None for what does not fit."""
    return {
        "model": _one_of(known.models),
        "concept": whole(0, known.concepts - 1),
        "image": whole(0, known.images - 1),
        "estimator": _one_of(tuple(known.temperatures)),
        "temperature": _number(0.05, 20.0),
        "low": _number(0.0, 0.5),
        "high": _number(0.5, 1.0),
        "colour": _one_of(known.colours),
        "status": _several(STATUSES, 0, len(STATUSES)),
        "frequency": _number(0.0, 1.0),
        "q": _number(0.0, 1.0),
        "text": lambda text: text if len(text) <= LONGEST_TEXT and text.isprintable() else None,
        "caption": lambda text: text if len(text) <= LONGEST_TEXT and text.isprintable() else None,
        "cluster": _several(known.clusters, 1, len(known.clusters)),
        "within": _ranges(known.models),
        "ids": lambda text: text if unpack_concepts(text, known.concepts) is not None else None,
        "sort": _one_of(
            tuple(
                sign + name
                for name in (*SORTS, *(f"{kind}:{model}" for kind in ("of", "q") for model in known.models))
                for sign in ("", "-")
            )
        ),
        "start": whole(0, known.concepts - 1),
        "side": _one_of(SIDES),
        "top": whole(6, 96),
        "models": _several(known.models, 1, MOST_MODELS),
        "axes": _several(known.models, 2, 2),
        "reference": _one_of((REAL, *known.models)),
        "quantity": _one_of(QUANTITIES),
        "margin": _number(*MARGINS),
        "target": _number(*TARGETS),
        "study": lambda text: text if NAME.fullmatch(text) else None,
        "rater": lambda text: text if 0 < len(text) <= LONGEST_RATER and text.isprintable() else None,
        "upload": lambda text: text if len(text) == 16 and text.isascii() and text.isalnum() else None,
        "job": lambda text: text if len(text) <= 64 and text.isascii() and text.isalnum() else None,
        "draw": lambda text: text if parse_settings(text) is not None else None,
        "beside": _job_ids,
    }


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str | None]:
    return lambda text: text if text in allowed else None


def _several(allowed: tuple[str, ...], fewest: int, most: int) -> Callable[[str], tuple[str, ...] | None]:
    def parse(text: str) -> tuple[str, ...] | None:
        chosen = tuple(dict.fromkeys(part for part in text.split(",") if part in allowed))
        return chosen if fewest <= len(chosen) <= most else None

    return parse


def _job_ids(text: str) -> tuple[str, ...] | None:
    found = tuple(dict.fromkeys(part for part in text.split(",") if JOB_ID.fullmatch(part)))
    return found if 1 <= len(found) <= MOST_BESIDE else None


def _ranges(models: tuple[str, ...]) -> Callable[[str], tuple[str, ...] | None]:
    """Return a parser of up to `MOST_RANGES` ranges of delta, ``MODEL:LOW:HIGH``."""

    def fits(text: str) -> bool:
        with suppress(ValueError):
            return all(model in models for model, *_ in delta_ranges([text]))
        return False

    def parse(text: str) -> tuple[str, ...] | None:
        chosen = tuple(dict.fromkeys(part for part in text.split(",") if fits(part)))
        return chosen if 1 <= len(chosen) <= MOST_RANGES else None

    return parse


def whole(low: int, high: int) -> Callable[[str], int | None]:
    """Return a parser of whole numbers from `low` to `high`, of eleven digits at most."""

    def parse(text: str) -> int | None:
        fits = text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high
        return int(text) if fits else None

    return parse


def _number(low: float, high: float) -> Callable[[str], float | None]:
    def parse(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and low <= value <= high else None

    return parse


def open_atlas(path: Path) -> Atlas:
    """Open an atlas once per process, and again once it was rebuilt; raises `BlindspotError` when that fails."""
    return _opened(path, header_state(path))


@st.cache_resource(show_spinner=False, max_entries=8)
def _opened(path: Path, state: tuple[int, ...]) -> Atlas:
    opened = Atlas.open(path)
    problems = [*checks.delta_settings(opened.info), *(() if opened.models else ("it has no model to compare",))]
    if problems:
        raise BlindspotError(f"The atlas {path} cannot be shown: {problems[0]}.")
    return opened


def atlas() -> Atlas:
    """Return the atlas of this tab."""
    return open_atlas(atlas_path())


@lru_cache(maxsize=8)
def version(opened: Atlas) -> str:
    """Return a short hash of an atlas's header: the part of every data URL that lets browsers cache for ever."""
    header = (opened.path / "atlas.json").read_bytes()
    opened.require_same()
    return hashlib.sha256(header).hexdigest()[:10]


def choose_atlas(name: str) -> None:
    """Show another atlas of the folder, from its overview's defaults; used in widget callbacks."""
    st.query_params.from_dict({shelf.PARAMETER: name})


def was_rebuilt() -> bool:
    """Return whether the atlas was rebuilt since this browser tab last asked."""
    if shelf.entered():  # concepts and images of another atlas
        for key in (CACHE, VERSION):
            st.session_state.pop(key, None)
    before, now = st.session_state.get(VERSION), version(atlas())
    st.session_state[VERSION] = now
    return before not in (None, now)


def is_rebuilt() -> bool:
    """Return whether the atlas was rebuilt since the page was begun; not once nothing can be opened there."""
    with suppress(BlindspotError, OSError):
        return st.session_state.get(VERSION, now := version(atlas())) != now
    return False


def known(path: Path | None = None) -> Known:
    """Return what a URL may name in an atlas; in this process's if none is given."""
    return _known(open_atlas(path or atlas_path()))


@lru_cache(maxsize=8)
def _known(opened: Atlas) -> Known:
    delta = opened.info.delta
    temperatures = {name: ESTIMATORS[name].temperature for name in opened.estimators}
    return Known(
        models=tuple(opened.models),
        concepts=opened.count,
        images=opened.info.images,
        estimator=delta.estimator,
        temperatures=temperatures | {delta.estimator: delta.temperature},
        low=delta.suppressed,
        high=delta.exaggerated,
        colours=COLOURS[:2] if opened.info.published else COLOURS,
        clusters=() if opened.info.published else _clusters(opened),
    )


def _clusters(opened: Atlas) -> tuple[str, ...]:
    concepts = opened.concepts
    return tuple(str(one) for one in sorted(set(concepts["cluster"][~concepts["dead"]])) if one >= 0)


def table(view: View, model: str | None = None) -> pd.DataFrame:
    """Return the concept table for a view's estimator and temperature; for its model unless another is named."""
    return view_table(atlas(), view, model)


@lru_cache(maxsize=8)
def image_table(opened: Atlas) -> pd.DataFrame:
    """Return source, pair, caption, file, width and height of every image, indexed by image."""
    return opened.images


def basis(view: View, model: str | None = None) -> Basis:
    """Return what a view's delta is computed with."""
    return view_basis(atlas(), view, model)


def open_view(page: str, keys: tuple[str, ...]) -> View:
    """Return this run's view and clean the URL.

    A page that was just entered by the navigation bar, without parameters, starts from what the last page showed. One
    that was entered by a link or by Back (``navigate.js``) shows what the URL says.

    Parameters
    ----------
    page
        Name of the page that asks.
    keys
        The parameters this page understands; others leave the URL, but what follows a person is remembered.
    """
    if is_rebuilt():
        st.rerun()  # a part of a page alone would show another atlas than the rest
    params = dict(st.query_params)
    cached = st.session_state.get(CACHE, {})
    context = get_script_run_ctx()
    by_link = context is not None and context.is_history_navigation
    if st.session_state.get(PAGE) != page and not by_link and not any(name in params for name in keys):
        params = cached
    st.session_state[PAGE] = page
    view = read({name: value for name, value in params.items() if name in keys}, known())
    shown = put(view, keys)
    kept = {name: value for name, value in cached.items() if name not in keys}
    st.session_state[CACHE] = {name: value for name, value in {**kept, **shown}.items() if name in SHARED}
    return view


def put(view: View, keys: tuple[str, ...] | None = None) -> dict[str, str]:
    """Write a view into the URL if it is not there already, and return its parameters."""
    params = write(view, known(), keys)
    if (address := params | shelf.parameters()) != dict(st.query_params):
        st.query_params.from_dict(address)
    return params


def settings() -> dict[str, str]:
    """Return the settings that a link to another page takes along."""
    cached = st.session_state.get(CACHE, {})
    return {name: cached[name] for name in SETTINGS if name in cached}


def change(**values: Any) -> None:
    """Change some parameters of the URL; used in widget callbacks, before the page runs again."""
    put(replace(read(dict(st.query_params), known()), **{**_from_the_top(values), **values}))


def follow(go: Mapping[str, Any]) -> None:
    """Change this page's view as a clicked link says; None removes a parameter."""
    changed = {name: value or None for name, value in _from_the_top(go).items()}
    params = {**dict(st.query_params), **changed, **go}
    put(read({name: str(value) for name, value in params.items() if value is not None}, known()))


def _from_the_top(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Another selection or order is listed from its first concept; another concept has no settings of a drawing yet."""
    first = {"start": 0} if set(changed) & set(NARROWING) else {}
    return first | ({"draw": "", "beside": ()} if "concept" in changed else {})


def choose(mask: np.ndarray, add: bool = False) -> None:
    """Narrow the selection to some concepts, chosen on a figure; with `add`, widen what was chosen so before.

    Raises
    ------
    BlindspotError
        If they are too many and too scattered for an address.
    """
    view = read(dict(st.query_params), known())
    before = unpack_concepts(view.ids, atlas().count)
    if before is not None:
        mask = mask | before if add else mask & before
    if (mask & select(atlas(), replace(view, ids=""))).any():
        change(ids=pack_concepts(mask))


def bound(name: str, value: Any) -> str:
    """Set a widget's session value to the view's before it is drawn, and return its key."""
    key = f"w_{name}"
    st.session_state[key] = value
    return key
