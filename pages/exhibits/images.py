"""Single images: how far drawn ones are from real ones, what post-training changed, copies, failures, one pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.storage import CSR
from engine.blindspots.divergence import BINS, LeadingConcepts, PostTraining, compare_divergence, leading_concepts
from engine.blindspots.words import rating_sheet
from engine.errors import BlindspotError
from engine.figures import divergence as figures
from pages.exhibits.base import Exhibit, Maker, drawn
from pages.widgets import data
from pages.widgets.state import View

LEVEL = 0.01
"""Level at which a copy is confirmed, as in `engine.blindspots.divergence`."""
TALL = 560
"""Pixels of the histogram of all models."""
LEADING = 12
"""Concepts of one pair in its figure."""


def pairs_of(model: str) -> pd.DataFrame:
    """Return a model's pairs by rising divergence, with their captions and whether they are confirmed copies."""
    atlas = data.current()
    rows = atlas.divergence(model).sort_values("l2", kind="stable")
    captions = data.image_table(data.atlas_path())["caption"]
    return rows.assign(confirmed=rows["p"] <= LEVEL, caption=captions.loc[rows["real_image"]].to_numpy())


def paired_models() -> list[str]:
    """Return the models that drew the captions of real images."""
    return [source.name for source in data.current().sources if source.kind == "model" and source.paired]


def histograms(view: View) -> Exhibit:
    """The divergence of every model that drew real captions; where none did, the reader says so."""
    found = {model: data.current().divergence(model) for model in paired_models() or data.current().models[:1]}
    edges = np.histogram_bin_edges(np.concatenate([rows["l2"] for rows in found.values()]), BINS)
    counts = {model: np.histogram(rows["l2"], edges)[0] for model, rows in found.items()}
    medians = {model: float(rows["l2"].median()) for model, rows in found.items()}
    figure = figures.divergence_histograms(edges, counts, medians, height=TALL)
    table = pd.concat({model: rows for model, rows in found.items()}, names=["model"]).reset_index()
    return drawn(figure, table)


def two_models(view: View) -> tuple[str, str]:
    """Return the two models to compare: the view's first two that drew real captions, filled up with others.

    Raises
    ------
    BlindspotError
        If fewer than two did.
    """
    models = paired_models()
    chosen = [model for model in view.models if model in models]
    chosen += [model for model in models if model not in chosen]
    if len(chosen) < 2:
        raise BlindspotError("Comparing two models on the same captions needs two that drew the real ones.")
    return chosen[0], chosen[1]


class Compared(NamedTuple):
    """Two models on the captions that both drew."""

    before: str
    after: str
    rows: pd.DataFrame
    """Indexed by pair: a column of l2 per model."""
    found: PostTraining


def compared(view: View) -> Compared:
    """Compare the view's `two_models`; raises `BlindspotError` when they share fewer than two captions."""
    before, after = two_models(view)
    sides = {model: data.current().divergence(model)["l2"] for model in (before, after)}
    rows = pd.DataFrame(sides).dropna()
    return Compared(before, after, rows, compare_divergence(rows[before].to_numpy(), rows[after].to_numpy()))


def post_training(view: View) -> Exhibit:
    """The divergence of two models on the same captions."""
    before, after, rows, found = compared(view)
    counts = {before: found.counts[0], after: found.counts[1]}
    medians = {before: found.medians[0], after: found.medians[1]}
    finding = figures.paired_finding(found.change, found.low, found.high, found.p, found.effect, found.closer)
    figure = figures.divergence_histograms(found.edges, counts, medians, finding=finding)
    renamed = rows.rename(columns={model: f"l2 of {model}" for model in rows})
    return drawn(figure, renamed.assign(change=rows[after] - rows[before]).reset_index())


def copies(view: View) -> Exhibit:
    """Divergence against the similarity of the nearest real image."""
    rows = pairs_of(view.model)
    table = rows.rename(columns={"nearest_real_similarity": "similarity"})
    figure = figures.memorisation_scatter(table, model=view.model, level=LEVEL)
    return drawn(figure, table.reset_index())


def worst(view: View) -> Exhibit:
    """The pairs of largest divergence with an empty column for whoever rates their captions."""
    rows = pairs_of(view.model).reset_index()
    sheet = rating_sheet(rows["l2"].to_numpy(), rows["caption"].tolist())
    sheet["pair"] = rows["pair"].to_numpy()[sheet["pair"]]
    return Exhibit(f"{view.model}: failures, with a column for a rater of captions", sheet)


class Pair(NamedTuple):
    """One pair of images and what they differ in."""

    number: int
    """The atlas's number of the pair."""
    row: pd.Series
    """Its row of `pairs_of`."""
    leading: LeadingConcepts


def chosen_pair(view: View, count: int = LEADING) -> Pair:
    """Return the pair that the view's image belongs to, or the model's worst where there is none."""
    rows = pairs_of(view.model)
    number = rows.index[-1]
    if view.image is not None:
        asked = int(data.image_table(data.atlas_path())["pair"].at[view.image])
        number = asked if asked in rows.index else number
    row = rows.loc[number]
    energies = [
        _energy(source, int(image)) for source, image in (("real", row["real_image"]), (view.model, row["image"]))
    ]
    return Pair(int(number), row, leading_concepts(*energies, count))


def _energy(source: str, image: int) -> sparse.csr_matrix:
    """Return the energies [1, K] of one image; only its row is read."""
    atlas = data.current()
    row = image - atlas.info.image_range(source).start
    return CSR.open(atlas.path / "energy" / source, atlas.count).rows(row, row + 1)


def one_pair(view: View) -> Exhibit:
    """The concepts in which the view's pair differs most; the table has all three lists."""
    pair, labels = chosen_pair(view), data.current().concepts["label"]
    lists = [
        pd.DataFrame({"leads": name, **found._asdict()}).rename(columns={"concepts": "concept"})
        for name, found in pair.leading._asdict().items()
    ]
    changed = lists[-1].set_index("concept").assign(label=labels)
    figure = figures.pair_concepts(changed, model=view.model, pair=pair.number, l2=float(pair.row["l2"]))
    table = pd.concat(lists, ignore_index=True)
    table.insert(2, "label", labels.loc[table["concept"]].to_numpy())
    table.insert(0, "pair", pair.number)
    return drawn(figure, table)


MAKERS = {
    "divergence": Maker(histograms, ()),
    "post-training": Maker(post_training, ("models",)),
    "copies": Maker(copies, ("model",)),
    "failures": Maker(worst, ("model",)),
    "pair": Maker(one_pair, ("model", "image")),
}
