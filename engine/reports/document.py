"""An atlas as one HTML page to send: nothing is asked of any network, images lie inside as small copies.

The same atlas gives the same page. Whatever an atlas says is text in it: the template escapes everything.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.schema import REAL, priors_of
from engine.errors import BlindspotError
from engine.figures.style import EXAGGERATED, GREY, NEUTRAL, SUPPRESSED, delta_colour
from engine.figures.tables import LEVEL, most_different, summarise
from engine.files import plain
from engine.reports.base import ReportView, report, report_names, view_basis, view_table
from engine.reports.files import WIDTH, atlas_origin, check_formats

CARDS = 96
"""Concepts with pictures over all models."""
MOST_CARDS, LEAST_CARDS = 8, 1
"""Of one model on one side."""
SAME = 2
"""Concepts of one label on one side of a model."""
PICTURES = 5
"""Images of a concept in a source."""
SIDE, QUALITY = 96, 72
"""Longest side in pixels, and webp quality, of the pictures in the page."""
STRIPS = 64
"""Strips of stress tests with pictures."""
ROWS = 60
"""Rows of a table of ratings that are shown."""
GRID = "rgba(141, 133, 144, 0.3)"
FIGURES = ("delta-densities", "maps", "map")
"""Reports whose figures are shown: the first, and one of the others."""

Progress = Callable[[int, int], None]


class Card(NamedTuple):
    """One concept that a model draws too seldom or too often."""

    concept: int
    label: str
    row: Mapping[Any, Any]
    """delta, ci_low, ci_high, q, frequency, relative."""
    pictures: Mapping[str, Sequence[str]]
    """Data URIs by source."""
    score: str
    """What is known of its label, in words."""


class Figure(NamedTuple):
    """A figure as an image."""

    title: str
    subtitle: str
    how: str
    src: str


class Section(NamedTuple):
    """Tables that another part of the project gives, such as those of a rating study."""

    title: str
    note: str
    tables: Mapping[str, pd.DataFrame]


def html_document(
    atlas: Atlas,
    *,
    figures: bool = True,
    sections: Sequence[Section] = (),
    progress: Progress = lambda done, total: None,
) -> str:
    """Return the page.

    Parameters
    ----------
    atlas
        Any atlas, also one of published statistics.
    figures
        Whether to draw figures, for which kaleido and Chromium are needed; without them the page says so.
    sections
        Further tables, such as those of ratings.
    progress
        Called with the parts done and all parts.
    """
    models, view = atlas.models, ReportView.of(atlas)
    parts = len(models) + 2
    per_side = max(LEAST_CARDS, min(MOST_CARDS, CARDS // (2 * max(len(models), 1))))
    shrink, groups = _Pictures(atlas), []
    for number, model in enumerate(models):
        groups.append(_group(atlas, view, model, per_side, shrink))
        progress(number + 1, parts)
    drawn, missing = _figures(atlas, view) if figures else ([], "")
    progress(parts - 1, parts)
    page = ENVIRONMENT.get_template("document.html").render(
        info=atlas.info, origin=atlas_origin(atlas, "report"), basis=view_basis(atlas, view), view=view, groups=groups,
        figures=drawn, missing=missing, stress=_stress(atlas), sections=sections, settings=_settings(atlas),
        has_images=atlas.has_images, inks={"suppressed": SUPPRESSED, "neutral": NEUTRAL, "exaggerated": EXAGGERATED},
        level=LEVEL, rows=ROWS, labelled=_labels(atlas),
    )  # fmt: skip
    progress(parts, parts)
    return page


class _Pictures:
    """Small copies of an atlas's images as data URIs, each made once."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.made = atlas, dict[int, str]()

    def of(self, concept: int, source: str) -> list[str]:
        """The images of a source that show a concept most."""
        if not self.atlas.has_images:
            return []
        return [self._small(int(image)) for image in self.atlas.exemplars(source, concept, PICTURES)["image"]]

    def _small(self, image: int) -> str:
        if image not in self.made:
            content = self.atlas.thumb_bytes(image)
            with Image.open(io.BytesIO(content), formats=["WEBP"]) as stored:
                small = max(stored.size) <= SIDE
            self.made[image] = _webp_uri(content) if small else small_picture(self.atlas.image(image))
        return self.made[image]


def small_picture(image: Image.Image, side: int = SIDE) -> str:
    """An image as a webp data URI, at most `side` pixels on its longer side; a strip, on its shorter one."""
    image = image.convert("RGB")
    if min(image.size) > side or (max(image.size) > side and max(image.size) < 3 * min(image.size)):
        scale = side / (min(image.size) if max(image.size) >= 3 * min(image.size) else max(image.size))
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return _webp_uri(buffer.getvalue())


def _webp_uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def _group(atlas: Atlas, view: ReportView, model: str, per_side: int, pictures: _Pictures) -> dict[str, Any]:
    """What one model does: numbers, and the clearest concepts of both sides."""
    table, source = view_table(atlas, view, model), atlas.info.source(model)
    scores = _labels(atlas)
    sides = {}
    for side in ("suppressed", "exaggerated"):
        rows = most_different(table, side, 6 * per_side)
        away = rows["delta"] < 0.5 if side == "suppressed" else rows["delta"] > 0.5
        rows = rows[away & ((rows["q"] < LEVEL) | rows["q"].isna())]
        # Of concepts that are called the same, the clearest few.
        rows = rows[(rows.groupby(rows["label"].fillna("")).cumcount() < SAME) | (rows["label"].fillna("") == "")]
        rows = rows.head(per_side)
        order = (REAL, model) if side == "suppressed" else (model, REAL)
        sides[side] = [
            Card(
                int(concept), _text(row["label"]), row,
                {name: found for name in order if (found := pictures.of(int(concept), name))},
                scores.get(int(concept), ""),
            )
            for concept, row in zip(rows.index, rows.to_dict("records"), strict=True)
        ]  # fmt: skip
    live = table[~table["dead"].to_numpy(bool)]
    return {"model": model, "source": source, "numbers": summarise(table, view.low, view.high), "sides": sides,
            "certain": {"suppressed": int(((live["q"] < LEVEL) & (live["delta"] < 0.5)).sum()),
                        "exaggerated": int(((live["q"] < LEVEL) & (live["delta"] > 0.5)).sum())},
            "measured": bool(live["q"].notna().any())}  # fmt: skip


def _labels(atlas: Atlas) -> dict[int, str]:
    """How well each concept's label predicts where it fires, in words, of those whose label was scored."""
    found = {}
    for row in atlas.concept_labels().reset_index().to_dict("records"):
        if math.isfinite(row["score"]):
            found[int(row["concept"])] = (
                f"label by {row['origin']}, score {row['score']:.2f} [{row['score_low']:.2f}, {row['score_high']:.2f}]"
            )
    return found


def _figures(atlas: Atlas, view: ReportView) -> tuple[list[Figure], str]:
    """The figures as SVG images in greys that are readable on both grounds, or why there are none."""
    try:
        check_formats(["svg"])
    except BlindspotError as error:
        return [], str(error)
    possible, drawn = report_names(atlas), []
    maps = "maps" if "maps" in possible else "map"
    for name in (one for one in (maps, FIGURES[0]) if one in possible):
        changes = {"models": tuple(atlas.models)} if name == "maps" else {}
        figure = report(atlas, name, view, **changes).figure
        if figure is None:
            continue
        title, how = figure.layout.title, figure.layout.meta["how"].partition(" Zoom, pan")[0]
        figure.update_layout(
            template="plotly_dark", font_color=GREY, title_text="", title_subtitle_text="", updatemenus=(),
            paper_bgcolor="rgba(0,0,0,0)", margin_t=40 if name == "maps" else 16,
        )  # fmt: skip
        figure.update_xaxes(gridcolor=GRID, linecolor=GRID, zerolinecolor=GRID)
        figure.update_yaxes(gridcolor=GRID, linecolor=GRID, zerolinecolor=GRID)
        svg = figure.to_image("svg", width=WIDTH, height=figure.layout.height)
        src = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
        drawn.append(Figure(_text(title.text), _text(title.subtitle.text), _text(how), src))
    return drawn, ""


def _stress(atlas: Atlas) -> list[dict[str, Any]]:
    """The stress tests by concept: rows by model, with the best images where there is room."""
    table = atlas.stress()
    table = table.astype(object).where(table.notna(), None)
    labels, left, found = atlas.shown_labels(), STRIPS, []
    for concept in sorted(set(table["concept"].tolist())):
        records: list[dict[Any, Any]] = table[table["concept"] == concept].to_dict("records")
        for row in records:
            row["strip"] = None
            if left > 0:
                try:
                    content = atlas.stress_bytes(concept, row["model"])
                    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
                        row["strip"] = small_picture(image, 64)
                    left -= 1
                except (BlindspotError, OSError, ValueError):
                    pass  # the numbers are shown without their images
        found.append({"concept": concept, "label": _text(labels.iat[concept]), "rows": records})
    return found


def _settings(atlas: Atlas) -> dict[str, str]:
    """What the header says of models and settings, as JSON by part."""
    info = atlas.info
    said = {
        "encoder": dict(info.encoder), "dictionary": dict(info.dictionary), "delta": asdict(info.delta),
        "priors": {name: dict(one) for name, one in priors_of(info).items()}, "judge": info.judge,
        "pipelines": dict(info.pipelines), "origin": info.origin, "images left out": dict(info.left_out),
        "fingerprints of the stages": dict(info.stages),
    }  # fmt: skip
    return {name: json.dumps(plain(value), indent=1, ensure_ascii=False) for name, value in said.items() if value}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _percent(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _small(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _number(value: object) -> str:
    """A cell of a table as text."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.3g}" if isinstance(value, float | np.floating) else str(value)


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
ENVIRONMENT.filters |= {"percent": _percent, "small": _small, "number": _number, "colour": delta_colour, "as": format}
ENVIRONMENT.tests["finite"] = lambda value: value is not None and math.isfinite(value)
