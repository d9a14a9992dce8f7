"""Single images: how far drawn ones are from real ones, what post-training changed, copies, failures, one pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.atlas.storage import CSR
from engine.blindspots.divergence import BINS, LeadingConcepts, PostTraining, compare_divergence, leading_concepts
from engine.blindspots.words import rating_sheet
from engine.errors import BlindspotError
from engine.figures import divergence as figures
from engine.reports.base import Report, ReportView, figure_report, has, register

LEVEL = 0.01
"""Level at which a copy is confirmed, as in `engine.blindspots.divergence`."""
LEADING = 12
"""Concepts of one pair in its figure."""


def paired_models(atlas: Atlas) -> list[str]:
    """Return the models that drew the captions of real images."""
    return [model for model in atlas.models if atlas.info.source(model).paired]


def ranked_pairs(atlas: Atlas, model: str) -> pd.DataFrame:
    """Return a model's pairs by rising divergence, with their captions and whether they are confirmed copies."""
    rows = atlas.divergence(model).sort_values("l2", kind="stable")
    captions = atlas.images["caption"].loc[rows["real_image"]].to_numpy()
    return rows.assign(confirmed=rows["p"] <= LEVEL, caption=captions)


def matching_pairs(rows: pd.DataFrame, text: str) -> pd.DataFrame:
    """Return the rows of `ranked_pairs` whose caption has all words of a text; all if it has none."""
    captions, words = rows["caption"].fillna("").str.casefold(), text.casefold().split()
    return rows[np.logical_and.reduce([captions.str.contains(word, regex=False) for word in words])] if words else rows


def likely_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `ranked_pairs`, the most certain copies first: by p, then by divergence."""
    return rows.sort_values(["p", "l2"], kind="stable")


@register("divergence", possible=has("divergence"))
def histograms(atlas: Atlas, view: ReportView) -> Report:
    """The divergence of every model that drew real captions; where none did, the reader says so."""
    found = {model: atlas.divergence(model) for model in paired_models(atlas) or atlas.models[:1]}
    edges = np.histogram_bin_edges(np.concatenate([rows["l2"] for rows in found.values()]), BINS)
    counts = {model: np.histogram(rows["l2"], edges)[0] for model, rows in found.items()}
    medians = {model: float(rows["l2"].median()) for model, rows in found.items()}
    figure = figures.divergence_histograms(edges, counts, medians, height=560)
    return figure_report(figure, pd.concat(found, names=["model"]).reset_index())


def compared_models(atlas: Atlas, view: ReportView) -> tuple[str, str]:
    """Return the two models to compare: the view's first two that drew real captions, filled up with others.

    Raises
    ------
    BlindspotError
        If fewer than two did.
    """
    models = paired_models(atlas)
    chosen = [model for model in view.models if model in models]
    chosen += [model for model in models if model not in chosen]
    if len(chosen) < 2:
        raise BlindspotError("Comparing two models on the same captions needs two that drew the real ones.")
    return chosen[0], chosen[1]


class ModelComparison(NamedTuple):
    """Two models on the captions that both drew."""

    before: str
    after: str
    rows: pd.DataFrame
    """Indexed by pair: a column of l2 per model."""
    found: PostTraining


def model_comparison(atlas: Atlas, view: ReportView) -> ModelComparison:
    """Compare the view's `compared_models`; raises `BlindspotError` when they share fewer than two captions."""
    before, after = compared_models(atlas, view)
    rows = pd.DataFrame({model: atlas.divergence(model)["l2"] for model in (before, after)}).dropna()
    return ModelComparison(before, after, rows, compare_divergence(rows[before].to_numpy(), rows[after].to_numpy()))


@register("post-training", "models", possible=lambda atlas: atlas.has("divergence") and len(paired_models(atlas)) > 1)
def post_training(atlas: Atlas, view: ReportView) -> Report:
    """The divergence of two models on the same captions."""
    before, after, rows, found = model_comparison(atlas, view)
    counts = dict(zip((before, after), found.counts, strict=True))
    medians = dict(zip((before, after), found.medians, strict=True))
    finding = figures.paired_finding(found.change, found.low, found.high, found.p, found.effect, found.closer)
    figure = figures.divergence_histograms(found.edges, counts, medians, finding=finding)
    renamed = rows.rename(columns={model: f"l2 of {model}" for model in rows})
    return figure_report(figure, renamed.assign(change=rows[after] - rows[before]).reset_index())


@register("copies", "model", possible=has("divergence"))
def copies(atlas: Atlas, view: ReportView) -> Report:
    """Divergence against the similarity of the nearest real image."""
    table = ranked_pairs(atlas, view.model).rename(columns={"nearest_real_similarity": "similarity"})
    return figure_report(figures.memorisation_scatter(table, model=view.model, level=LEVEL), table.reset_index())


@register("failures", "model", possible=has("divergence"))
def failures(atlas: Atlas, view: ReportView) -> Report:
    """The pairs of largest divergence with an empty column for whoever rates their captions."""
    rows = ranked_pairs(atlas, view.model).reset_index()
    sheet = rating_sheet(rows["l2"].to_numpy(), rows["caption"].tolist())
    sheet["pair"] = rows["pair"].to_numpy()[sheet["pair"]]
    return Report(f"{view.model}: failures, with a column for a rater of captions", sheet)


class ImagePair(NamedTuple):
    """One pair of images and what they differ in."""

    number: int
    """The atlas's number of the pair."""
    row: pd.Series
    """Its row of `ranked_pairs`."""
    leading: LeadingConcepts


def image_pair(atlas: Atlas, view: ReportView) -> ImagePair:
    """Return the pair that the view's image belongs to, or the model's worst where there is none."""
    rows = ranked_pairs(atlas, view.model)
    number = rows.index[-1]
    if view.image is not None:
        asked = int(atlas.images["pair"].to_numpy()[view.image])
        number = asked if asked in rows.index else number
    row = rows.loc[number]
    real, drawn = _energy(atlas, REAL, int(row["real_image"])), _energy(atlas, view.model, int(row["image"]))
    return ImagePair(int(number), row, leading_concepts(real, drawn, LEADING))


def _energy(atlas: Atlas, source: str, image: int) -> sparse.csr_matrix:
    """Return the energies [1, K] of one image; only its row is read."""
    row = image - atlas.info.image_range(source).start
    return CSR.open(atlas.path / "energy" / source, atlas.count, atlas.path).rows(row, row + 1)


@register("pair", "model", "image", possible=has("divergence"))
def one_pair(atlas: Atlas, view: ReportView) -> Report:
    """The concepts in which the view's pair differs most; the table has all three lists."""
    pair, labels = image_pair(atlas, view), atlas.shown_labels()
    lists = [
        pd.DataFrame({"leads": name, **found._asdict()}).rename(columns={"concepts": "concept"})
        for name, found in pair.leading._asdict().items()
    ]
    changed = lists[-1].set_index("concept").assign(label=labels)
    figure = figures.pair_concepts(changed, model=view.model, pair=pair.number, l2=float(pair.row["l2"]))
    table = pd.concat(lists, ignore_index=True)
    table.insert(2, "label", labels.loc[table["concept"]].to_numpy())
    table.insert(0, "pair", pair.number)
    return figure_report(figure, table)
