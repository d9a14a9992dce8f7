"""Samplers: which method draws a concept best at equal activation, in images first and then in numbers."""

from collections.abc import Callable
from dataclasses import replace
from html import escape

import pandas as pd
import streamlit as st

from engine.errors import BlindspotError
from engine.figures.samplers import NARROW_HEIGHT
from pages.exhibits import named, samplers
from pages.widgets import data, markup, state, url
from pages.widgets.exhibit import missing, takeaway
from pages.widgets.live import asset, link, live
from pages.widgets.plot import caption, plot

# Whether the opened atlas is the one whose concepts were drawn: then a choice goes into the URL and from page to page.
# In another atlas the same number is another concept. (A docstring here would show on the page.)
OWN = data.atlas_path() == data.DEFAULT
KEYS = ("concept",) if OWN else ()
HEADS = {"frechet": "Fréchet", "kid": "KID", "diversity": "diversity"}
BEST = 'style="background:color-mix(in srgb, var(--st-primary-color) 22%, transparent)"'
Best = Callable[[pd.Series], float]
BESTS: dict[str, Best] = {
    "matched": pd.Series.max,
    "of_target": lambda values: values.loc[(values - 1).abs().idxmin()],
    "frechet": pd.Series.min,
    "kid": pd.Series.min,
    "diversity": pd.Series.max,
    "seconds": pd.Series.min,
    "megabytes": pd.Series.min,
}
DIGITS = {"matched": 0, "of_target": 2, "slope": 2, "seconds": 2, "megabytes": 2}


def introduction(found: samplers.Comparison) -> str:
    """Say what was measured, and who judges."""
    judges = "The encoder, which the methods climb and may fool, judges the images by its class token"
    if "patches" in found.judges:
        judges += ", and by the mean of its patches, where concepts live"
    if "dinov2" in found.judges:
        judges += "; so does DINOv2 ViT-S/14 (saliency-tuned), by its patches, which none of the methods has seen"
    text = (
        f"{len(found.concepts)} held-out concepts of the demo atlas, each drawn {found.count} times by every method at "
        "the strength that brings the mean score to that of the concept's four best real images, within "
        f"{100 * found.tolerance:g} %. {judges}."
    )
    return f'<p class="ba-note">{escape(text)}</p>'


def chosen(concepts: list[int]) -> int:
    """Let a person choose a concept, and return it."""
    names = samplers.names()
    if not OWN:
        return st.selectbox("Concept", concepts, format_func=names.get)
    view = url.current("samplers", KEYS)
    concept = view.concept if view.concept in concepts else concepts[0]
    if view.concept not in (None, concept):
        url.put(replace(view, concept=None), KEYS)
    key = url.bound("concept", concept)
    return st.selectbox(
        "Concept", concepts, format_func=names.get, key=key,
        on_change=lambda: url.change(concept=st.session_state[key]),
    )  # fmt: skip


@st.fragment
def drawings() -> None:
    """One concept by every method."""
    found = samplers.measured()
    with st.container(width=420):
        concept = chosen(found.concepts)
    try:
        places = samplers.tiles(concept)
    except BlindspotError as error:
        st.info(str(error))
        return
    name, source = samplers.names()[concept], samplers.address(concept)
    blocks = block("best real images", "set the target", name, source, places[0])
    missed = ""
    for method, images in zip(found.methods, places[1:], strict=True):
        words, note = found.table.at[method, "method"], found.notes.get((concept, method))
        blocks += block(words, "missed the target" if note else "at the target", name, source, images)
        missed += f"<div><b>{escape(words)}</b>: {escape(note)}</div>" if note else ""
    more = (
        f'<a href="{escape(source)}" target="_blank" rel="noopener"><u>All of them as one picture, with their '
        "scores</u></a>"
    )
    card = ""
    if OWN:
        card = f" · {link({'concept': concept}, '<u>The card of this concept</u>', page='concept_map')}"
    live(
        f'<div class="ba-parts">{blocks}</div><div class="ba-note" style="margin-top:0.8rem">{missed}'
        f"<div>{more}{card}</div></div>",
        key="drawings",
    )


def block(method: str, verdict: str, name: str, source: str, images: list[samplers.Tile]) -> str:
    """Return a method's images of one concept, two by two."""
    pictures = "".join(
        f'<span class="ba-picture"><img src="{escape(source)}" alt="{escape(f"{name}, {method}, {i}")}" '
        f'style="width:{tile.width:.3%};left:{-tile.left:.3%};top:{-tile.top:.3%}"></span>'
        for i, tile in enumerate(images, start=1)
    )
    grid = f'<div class="ba-couple" style="grid-template-columns:1fr 1fr">{pictures}</div>'
    return f'<div>{grid}<b title="{escape(method)}">{escape(method)}</b><span class="ba-note">{verdict}</span></div>'


def numbers(found: samplers.Comparison) -> None:
    """All methods in numbers, and what chance gives."""
    rows = found.table.loc[[*found.methods, *found.bases]]
    cells = {}
    for column in rows.columns[1:]:
        quantity = column.split()[-1]
        cells[column] = marked(rows[column], DIGITS.get(quantity, 3), BESTS.get(quantity))
    body = ""
    for i, (name, method) in enumerate(rows["method"].items()):
        head = escape(method) if name in found.bases else f"<b>{escape(method)}</b>"
        body += f"<tr><td>{head}</td>{''.join(column[i] for column in cells.values())}</tr>"
    tops = f'<th></th><th colspan="2">target</th>{judge_heads(found)}<th></th><th colspan="2">a sample</th>'
    heads = (
        f"<th></th><th>reached, of {len(found.concepts)}</th><th>score/target</th>"
        f"{distance_heads(found)}<th>slope</th><th>s</th><th>MB</th>"
    )
    how = (
        "Fréchet distance and KID compare all images of a method with the prior's own: lower is nearer. Diversity is "
        "the mean cosine distance of two images of a concept: higher is more varied. The last rows show no concept: "
        "fresh samples of the prior, which is what chance gives, and real images at random, in the same number. Their "
        "diversity is that of unrelated images, from which a method draws or retrieves. Slope: log power falls with "
        "log frequency, about 2 for photographs. A score/target of 1 is as asked. Learning a prompt and scoring the "
        "corpus are part of a sample's cost. Shaded: the best of its column."
    )
    live(
        f'{takeaway(named("samplers", VIEW))}<p class="ba-note">{escape(how)}</p><div class="ba-scroll">'
        f'<table class="ba-table"><tr>{tops}</tr><tr>{heads}</tr>{body}</table></div>',
        key="numbers",
    )


def judge_heads(found: samplers.Comparison) -> str:
    """Return a heading per judge over its columns."""
    return "".join(f'<th colspan="{len(HEADS)}">seen by {escape(samplers.JUDGES[one])}</th>' for one in found.judges)


def distance_heads(found: samplers.Comparison) -> str:
    """Return the headings of every judge's columns."""
    return "".join(f"<th>{head}</th>" for head in HEADS.values()) * len(found.judges)


def marked(values: pd.Series, digits: int, best: Best | None) -> list[str]:
    """Return a column's cells, the best of them shaded; what no method drew does not compete."""
    rivals = values.drop([*samplers.BASES], errors="ignore").dropna().astype(float)
    winner = markup.number(best(rivals), digits) if best and len(rivals) > 1 else None
    texts = [markup.number(float("nan") if pd.isna(value) else float(value), digits) for value in values]
    return [
        f"<td {BEST}>{text}</td>" if text == winner and name not in samplers.BASES else f"<td>{text}</td>"
        for name, text in zip(values.index, texts, strict=True)
    ]


def side_by_side(found: samplers.Comparison) -> None:
    """Every method beside EnergyDPS where both reached the target."""
    if found.fair.empty:
        return
    how = (
        "A method that falls short of a target has pushed less there, and may lie nearer to the prior just for that. "
        "So each method stands here beside EnergyDPS over only those concepts where both reached the target; the "
        "better of the two is shaded. Pairs of different methods are not over the same concepts. Behind EnergyDPS's "
        "diversity: by how much it is the larger, mean over the concepts and its standard error."
    )
    body = ""
    for method, pair in found.fair.groupby("method", sort=False):
        count = pair["concepts"].iloc[0]
        names = samplers.judged_columns(found.judges)
        columns = {name: marked(pair[name], 3, BESTS[name.split()[1]]) for name in names}
        own = "".join(column[0] for column in columns.values())
        rival = "".join(with_gain(column[1], pair.iloc[1], name) for name, column in columns.items())
        body += f"<tr><td><b>{escape(method)}</b></td><td>{count}</td>{own}</tr>"
        body += f'<tr><td style="padding-left:1.2rem">EnergyDPS there</td><td></td>{rival}</tr>' if count else ""
    with st.expander("Where both reached the target"):
        live(
            f'{takeaway(named("samplers-fair", VIEW))}<p class="ba-note">{escape(how)}</p><div class="ba-scroll">'
            f'<table class="ba-table"><tr><th></th><th></th>{judge_heads(found)}</tr>'
            f"<tr><th></th><th>concepts</th>{distance_heads(found)}</tr>{body}</table></div>",
            key="fair",
        )


def with_gain(cell: str, row: pd.Series, column: str) -> str:
    """Return a cell of EnergyDPS's with how much more diverse it is, where that is known."""
    judge, quantity = column.split()
    gain, error = row.get(f"{judge} gain"), row.get(f"{judge} error")
    if quantity != "diversity" or pd.isna(gain) or pd.isna(error):
        return cell
    return cell.replace("</td>", f" <small>({gain:+.3f} ± {error:.3f})</small></td>".replace("-", "−"))


def figure(name: str) -> None:
    """Distance against diversity, its panels below each other on a phone."""
    shown = named(name, VIEW)
    live(takeaway(shown) + caption(shown.exhibit.figure), key=f"how_{name}")
    source, height = asset(shown.path("json")), shown.exhibit.figure.layout.height
    plot(source=source, height=height, narrow_source=source, narrow_height=NARROW_HEIGHT * len(report.judges), key=name)


VIEW: state.View = url.current("samplers", KEYS)
st.title("Samplers", anchor=False)
if missing("samplers", VIEW):
    st.stop()
report = samplers.measured()
live(introduction(report), key="introduction")
drawings()
st.header("In numbers", anchor="numbers", divider="gray")
numbers(report)
side_by_side(report)
st.header("Distance and diversity", anchor="distances", divider="gray")
figure("samplers-distances")
