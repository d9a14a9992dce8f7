"""All HTML of the app: templates that escape whatever an atlas or a person wrote, and the component that shows them.

A file of `pages/templates` is a set of Jinja macros; ``render("card.heading", view=view)`` calls one. An element with
``data-go='{"concept": 5}'`` reports that change of the view to `show`, which merges it into the URL. A link to another
page is followed in the browser (``navigate.js``). Sliders marked ``data-heat`` fade the heat maps there too.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures.style import EXAGGERATED, NEUTRAL, SUPPRESSED, delta_colour
from engine.figures.tables import LEVEL
from pages.widgets import session, shelf

HERE = Path(__file__).parent
log = logging.getLogger(__name__)

_component = st.components.v2.component(
    "blindspot_html",
    html='<div class="ba-live"></div>',
    js="\n".join((HERE / name).read_text(encoding="utf-8") for name in ("navigate.js", "html.js")),
    isolate_styles=False,
)


@dataclass(frozen=True)
class Fit:
    """How the encoder saw an image, so that a heat map lands where it belongs on the thumbnail."""

    aspect: float = 1.0
    """Width over height of the image."""
    crop: float | None = None
    """For encoders that crop the centre: the share of the shorter side that is left; None when they squeeze."""

    @property
    def box(self) -> str:
        """The style of the image in a square that shows its centre."""
        aspect = self.aspect if self.aspect > 0 else 1.0
        wide, high = 100 * max(aspect, 1.0), 100 * max(1 / aspect, 1.0)
        return f"width:{wide:.2f}%;height:{high:.2f}%;left:{50 - wide / 2:.2f}%;top:{50 - high / 2:.2f}%"

    def overlay(self, tile: int, tiles: int) -> str:
        """The style of a tile of the heat sheet that an ancestor sets as ``--sheet``, over what the encoder saw."""
        box = self.box if self.crop is None else f"inset:{50 * (1 - self.crop):.2f}%"
        position = 100 * tile / (tiles - 1) if tiles > 1 else 0
        return f"{box};background-size:100% {100 * tiles}%;background-position:0 {position:.3f}%"


def fit_of(image: int) -> Fit:
    """Return how the atlas's encoder saw an image."""
    row = session.image_table(session.atlas()).loc[image]
    return fit_of_size(row["width"], row["height"])


def fit_of_size(width: float, height: float) -> Fit:
    """Return how the atlas's encoder sees an image of this size."""
    encoder = session.atlas().info.encoder
    crop = float(encoder.get("crop_fraction", 0.875)) if encoder.get("resize") == "crop" else None
    return Fit(aspect=width / height if height else 1.0, crop=crop)


def best_image(concept: int, source: str) -> int | None:
    """Return the image that shows a concept most: the source's own, else a real one, if any does."""
    return best_image_of(session.atlas(), concept, source)


@lru_cache(maxsize=20_000)
def best_image_of(atlas: Atlas, concept: int, source: str) -> int | None:
    """Return the same of a named atlas; what many concepts of one page are asked for."""
    for name in dict.fromkeys((source, "real")):
        images = atlas.exemplars(name, concept, 1)["image"]
        if len(images):
            return int(images.iloc[0])
    return None


def data_uri(content: bytes, kind: str) -> str:
    """Return an image as an address that holds it: a card arrives whole, in one message, not in thirty."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def encoder_name() -> str:
    """Return what a person calls the atlas's encoder: its hub id, or its architecture and where its folder lies."""
    name = str(session.atlas().info.encoder["id"])
    folder = Path(os.path.abspath(session.atlas_path() / name))
    if not folder.is_dir() and not name.startswith((".", "/")):
        return name
    try:
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0].removesuffix("Model")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        architecture = "encoder"
    return f"the {architecture} in {'/'.join(folder.parts[-2:])}"


def asset(path: str) -> str:
    """Return the address of one of the atlas's own routes (`pages.routes`), such as ``thumb/12.webp``."""
    return f"/atlas/{session.version(session.atlas())}/{path}"


def address(go: Mapping[str, Any], page: str | None = None) -> str:
    """Return the address of a changed view of this page, or of another page that keeps this one's settings."""
    params = {**session.settings(), **shelf.parameters(), **go} if page else {**shelf.parameters(), **go}
    return f"{page or ''}?{urlencode({name: value for name, value in params.items() if value is not None})}"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number briefly; a dash for what is not one."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1e}" if value != 0 and abs(value) < 10**-digits else f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """Format a share in [0, 1] as percent."""
    return "–" if not math.isfinite(share) else f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def probability(value: float, name: str = "p") -> str:
    """Format a p or q value as people do."""
    if not math.isfinite(value):
        return f"{name} –"
    return f"{name} < 0.001" if value < 0.001 else f"{name} = {value:.2g}"


def small(value: float) -> str:
    """Format a p or q value in a table."""
    return "–" if not math.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"


def title_of(concept: int, label: str | None) -> str:
    """Return a concept's name: its label if it has one."""
    return str(label) if label else f"Concept {concept}"


def plain(text: object, code: bool = False) -> str:
    """Return text for one of Streamlit's own elements, which read Markdown, so that it shows as it is.

    With `code`, what stands between single backticks stays code: for sentences of ours that may quote an atlas.
    """
    whole = " ".join(str(text).split())
    parts = re.split(r"(?<!`)(`[^`]+`)(?!`)", whole) if code else [whole]
    marks = r"([\\`*\[\]<$~&|]|(?<!\w)_|_(?!\w)|^[#>+=-]|(?<=^\d)[.)])"
    shown = (part if place % 2 else re.sub(marks, r"\\\1", part) for place, part in enumerate(parts))
    # A word joiner, which nobody sees, breaks what is a link or an icon even when escaped: ://, www., @ and :name:
    linked = r":(?=//|[\w+\-/]+:)|www(?=\.)|(?<=\w)@(?=\w)"
    return re.sub(linked, "\\g<0>\u2060", "".join(shown), flags=re.IGNORECASE)


class _Compact(Extension):
    """Drops the line breaks of templates: between two tags or expressions they are nothing, elsewhere one space."""

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        for token in stream:
            if token.type == "data":
                text = re.sub(r"(?<![^>])\s*\n\s*(?![^<])", "", token.value)
                token = Token(token.lineno, "data", re.sub(r"\s*\n\s*", " ", text))
            yield token


environment = Environment(
    loader=FileSystemLoader(HERE.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    extensions=[_Compact],
)
environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": int}
environment.filters |= {
    "number": number, "small": small, "percent": percent, "probability": probability, "colour": delta_colour,
    "as": format,
}  # fmt: skip
environment.tests["finite"] = math.isfinite
environment.globals |= {
    "INKS": {"suppressed": SUPPRESSED, "neutral": NEUTRAL, "exaggerated": EXAGGERATED}, "LEVEL": LEVEL,
    "address": address, "asset": asset, "atlas": session.atlas, "best_image": best_image,
    "data_uri": data_uri, "encoder_name": encoder_name, "fit_of": fit_of, "title_of": title_of,
}  # fmt: skip


def render(name: str, /, **values: Any) -> Markup:
    """Return the HTML of a macro, ``FILE.MACRO`` of `pages/templates`."""
    file, macro = name.split(".")
    return getattr(environment.get_template(f"{file}.html").module, macro)(**values)


def show(name: str, /, *, key: str, **values: Any) -> None:
    """Show a macro's HTML, whose marked elements change the view; `key` names its place on the page."""

    def follow() -> None:
        go = st.session_state[key].get("go")
        if isinstance(go, Mapping):
            session.follow(go)

    _component(key=key, data={"html": render(name, **values)}, on_go_change=follow)


@contextmanager
def explained() -> Iterator[None]:
    """Say in one sentence why a part of the page ended, instead of Streamlit's box that hides it."""
    try:
        yield
    except BlindspotError as error:
        if session.is_rebuilt():
            st.rerun()
        st.error(plain(error, code=True), icon=":material/error:")
    except Exception as error:
        failed(error)


def failed(error: Exception) -> None:
    """Say that a part of the page ended by a defect, and log where."""
    log.error("A part of the page failed", exc_info=error)
    reason = " ".join(str(error).split())[:200] or "no reason given"
    st.error(plain(f"This part of the page ended with {type(error).__name__}: {reason}. The log says where."))


def fragment(function: Callable | None = None, *, run_every: float | None = None) -> Callable:
    """Make a part of a page run on its own, as `st.fragment` does, and say in one sentence why it ended if it fails."""
    if function is None:
        return partial(fragment, run_every=run_every)
    return st.fragment(wraps(function)(explained()(function)), run_every=run_every)


def styles() -> None:
    """Load the style sheet of everything that is HTML; once per run, before the page."""
    st.html(HERE / "style.css")


def atlas_choice() -> None:
    """Offer the atlases of the folder that the app was started with, where it is no atlas itself."""
    names = list(shelf.atlases())
    if not names:
        return
    if (asked := shelf.unknown()) is not None:
        said = f"There is no atlas {plain(asked[:80])} here: you see {plain(shelf.chosen())}."
        st.warning(said, icon=":material/info:")
    with st.container(key="shelf", horizontal=True, horizontal_alignment="right"):
        st.selectbox(
            "Atlas", names, key=session.bound("atlas", shelf.chosen()), width=260, label_visibility="collapsed",
            on_change=lambda: session.choose_atlas(st.session_state["w_atlas"]), format_func=plain,
        )  # fmt: skip


def notice() -> None:
    """Say at the top of the page what a link asks for that the atlas does not have; nothing for a link that fits."""
    params, known = dict(st.query_params), session.known()
    wrong = session.misfits(params, known)
    if wrong:
        show("parts.misfits", key="notice", wrong=wrong, view=session.read(params, known))
