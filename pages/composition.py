"""Composition: which concepts appear together in real and in drawn images, and what scalar metrics make of it."""

from html import escape

import pandas as pd
import streamlit as st

from engine.atlas.schema import HALVES
from pages.exhibits import named
from pages.exhibits.composition import changed_pairs, verdict
from pages.widgets import changed, controls, url
from pages.widgets.exhibit import missing, show, takeaway
from pages.widgets.live import link, live

KEYS = ("model", "estimator", "temperature", "low", "high", "top")
SPACES = {"encoder": "In the encoder's space", "concepts": "In concept space"}
MEASURES = ("precision", "recall", "density", "coverage")


@st.fragment
def one_model() -> None:
    """What one model combines differently."""
    view = url.current("composition", KEYS)
    st.header("What one model combines differently", anchor="changes", divider="gray")
    controls.model_choice(view)
    pictures, figures = st.columns([11, 9], gap="large")
    with pictures:
        if not missing("changed-pairs", view):
            rows = changed_pairs(view.model)
            how = (
                f"{min(view.top, len(rows))} of the {len(rows):,} pairs of concepts whose cosine of token codes changed"
                " most: significant ones first, then by the size of the change. ×: tokens per image on which both "
                "fire, model over real. p is judged on images and multiplied by the number of pairs that were "
                "frequent enough to be ranked."
            )
            more = ""
            if view.top < min(96, len(rows)):
                more = f"<p>{link({'top': min(96, view.top + 24)}, 'Show more', css='ba-chip ba-more')}</p>"
            shown = changed.changed_list(rows.head(view.top), view.model)
            live(f'<p>{verdict(rows)}</p><p class="ba-note">{escape(how)}</p>{shown}{more}', key="changed")
    with figures:
        show("changed-pairs", view)
        show("directions", view)


def brief(value: float) -> str:
    """Write a distance in three digits, or whole where it is large."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def metrics_table(title: str, rows: pd.DataFrame) -> str:
    """Return one space's metrics: a row per model, the real halves last."""
    heads = ("", "FID", "at half size", *MEASURES, "images")
    body = ""
    for row in [*rows[rows["model"] != HALVES].to_dict("records"), *rows[rows["model"] == HALVES].to_dict("records")]:
        numbers = [*(brief(row[name]) for name in ("fid", "fid_half")), *(f"{row[name]:.3f}" for name in MEASURES)]
        cells = "".join(f"<td>{'–' if number == 'nan' else number}</td>" for number in numbers)
        body += f"<tr><td><b>{escape(row['model'])}</b></td>{cells}<td>{row['images']:,}</td></tr>"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    table = f'<div class="ba-scroll"><table class="ba-table"><tr>{head}</tr>{body}</table></div>'
    return f"<div><h3>{escape(title)}</h3>{table}</div>"


def scalars() -> None:
    """FID and its kin, with what they hide."""
    st.header("Scalar metrics", anchor="metrics", divider="gray")
    if missing("metrics", view):
        return
    found = named("metrics", view)
    table = found.exhibit.table
    blindspots = link({}, "Blindspots", page="blindspots")
    how = (
        "What they hide: a model that never draws one thing can score as well as one that draws everything a little "
        f"worse; which concepts are missing stands under <u>{blindspots}</u>. Few images bias FID upwards: compare “at "
        f"half size” with {HALVES}. FID is in units of the feature squared; the others use "
        f"k = {int(table['k'].iloc[0])} nearest neighbours."
    )
    spaces = "".join(metrics_table(SPACES[space], table[table["space"] == space]) for space in SPACES)
    live(f'{takeaway(found)}<p class="ba-note">{how}</p><div class="ba-split">{spaces}</div>', key="metrics")


view = url.current("composition", KEYS)
st.title("Composition", anchor=False)
if missing("connections", view):
    st.stop()
for column, name in zip(st.columns(3, gap="large"), ("connections", "unique-connections", "spectrum"), strict=True):
    with column:
        show(name, view)
one_model()
scalars()
