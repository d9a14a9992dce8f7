"""All that the other stages found, written as one atlas."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.atlas.reader import Atlas
from engine.atlas.schema import HEADER, PERSON, REAL, AtlasInfo, Source
from engine.atlas.tables import delta_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.significance import Moments, measure_gap
from engine.errors import BlindspotError
from engine.files import file_hash, write_whole
from engine.priors.loading import check_prior
from engine.priors.spec import PriorSpec
from precompute.recipe import Pipeline, Recipe
from precompute.runner import HEADER_MARK, Context, Progress, Stage, model_input
from precompute.stages.corpus import count_skipped, images_of
from precompute.stages.encode import read_spec
from precompute.stages.energies import live_concepts, statistics_of, stored_energy
from precompute.stages.layout import concept_map
from precompute.stages.pairing import pair_numbers, pairing_of
from precompute.stages.words import read_words


class AssembleStage(Stage):
    """`assemble`: the atlas, of the parts that each of the stages `before` adds and the tables that join several."""

    unit = "atlases"

    def __init__(self, context: Context, before: Sequence[Stage]) -> None:
        recipe, sources = context.recipe, {name: context.source(name) for name in context.sources}
        params = {
            "name": recipe.name,
            "description": recipe.description,
            "shown": {name: [source.label, source.description] for name, source in sources.items()},
            "delta": asdict(recipe.delta),
            "encoder": reference(recipe.encoder.id, context.out),
            "prior": _prior(context, recipe.prior),
        } | ({"priors": _priors(context)} if recipe.priors else {})
        params |= {"judge": _judge(context)} if recipe.judge else {}
        super().__init__(context, "assemble", params, [stage.name for stage in before])
        self.before = before

    def preflight(self) -> None:
        """Check the priors, which nothing before loads."""
        recipe = self.context.recipe
        for prior in (recipe.prior, *recipe.priors.values()):
            if prior is not None:
                check_prior(prior)

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the atlas, replacing the one that is there, and the hash of its header into the stage's folder."""
        context, labels = self.context, _labels_to_keep(self.context)
        with AtlasWriter(context.out) as writer:
            writer.write_table("concepts", _concepts(context))
            writer.write_table("delta", _delta(context))
            writer.write_table("images", _images(context))
            for kind in dict.fromkeys(type(stage) for stage in self.before):
                kind.add_to_atlas(context, writer)
            if len(labels):
                writer.write_table("concept_labels", labels)
            info = writer.finish(self._info())
        mark = file_hash(context.out / HEADER)
        write_whole(folder / HEADER_MARK, lambda partial: partial.write_text(mark))
        return {"files": len(info.files)}

    def _info(self) -> AtlasInfo:
        context, recipe, work = self.context, self.context.recipe, self.context.work
        encoder = read_spec(context.folder(f"encode/{REAL}")).to_dict()
        return AtlasInfo(
            name=recipe.name,
            description=recipe.description,
            encoder=encoder | {"id": reference(recipe.encoder.id, context.out)},
            dictionary=work.summary("dictionary"),
            sources=tuple(_source(context, name) for name in context.sources),
            delta=recipe.delta,
            composition_rows=recipe.composition.rows,
            prior=_prior(context, recipe.prior),
            priors=_priors(context),
            judge=_judge(context),
            pipelines=pipelines_of(recipe, context.out),
            left_out={name: count_skipped(context.folder(context.images_stage(name))) for name in context.sources},
            stages={stage.name: work.record(stage.name)["fingerprint"] for stage in self.before},
        )


def _labels_to_keep(context: Context) -> pd.DataFrame:
    """Rows of `concept_labels` of the atlas that is replaced, which hold for the new one.

    With the same concepts and real images, all; with the same concepts alone, those that a person wrote, unscored.
    """
    try:
        old = Atlas.open(context.out)
        labels = old.concept_labels().reset_index()
    except BlindspotError:
        return pd.DataFrame()
    marks = {name: context.work.record(name).get("fingerprint") for name in ("dictionary", f"energies/{REAL}")}
    same = {name: mark is not None and old.info.stages.get(name) == mark for name, mark in marks.items()}
    if same[f"energies/{REAL}"]:
        return labels
    scores = ["score", "score_low", "score_high", "fuzzing"]
    return labels[(labels["origin"] == PERSON) & same["dictionary"]].assign(images=0, **dict.fromkeys(scores, np.nan))


def _prior(context: Context, prior: PriorSpec | None, key: str = "prior") -> dict[str, Any] | None:
    """What the header says of a prior."""
    if prior is None:
        return None
    model_input(f"{key}.id", prior.id, {})
    return prior.to_dict() | {"id": reference(prior.id, context.out)}


def _priors(context: Context) -> dict[str, Any]:
    """What the header says of the further priors."""
    return {name: _prior(context, prior, f"priors.{name}") for name, prior in context.recipe.priors.items()}


def _judge(context: Context) -> dict[str, Any] | None:
    """What the header says of the judge."""
    judge = context.recipe.judge
    return None if judge is None else judge.to_dict() | {"id": reference(judge.id, context.out)}


def pipelines_of(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What the header of an atlas at `out` says of the pipelines that draw its models' images."""
    return {
        name: model.with_models(lambda _, ref: reference(ref, out)).to_dict()
        for name, model in recipe.models.items()
        if isinstance(model, Pipeline)
    }


def _source(context: Context, name: str) -> Source:
    """What the header says of a source."""
    block, pairing = context.source(name), pairing_of(context, name)
    return Source(
        name=name,
        kind="real" if name == REAL else "model",
        label=block.label or name,
        images=len(pairing.pair_index),
        paired=bool((pair_numbers(context)[name] >= 0).any()),
        pairing=pairing.kind,
        skipped=context.work.summary(context.images_stage(name))["skipped"],
        description=block.description,
    )


def _concepts(context: Context) -> pd.DataFrame:
    """Rows of `concepts.parquet`: place, cluster and name of every concept."""
    layout, words, live = concept_map(context), read_words(context.folder("words")), live_concepts(context)
    return pd.DataFrame(
        {
            "concept": np.arange(len(live)),
            "x": layout.xy[:, 0],
            "y": layout.xy[:, 1],
            "cluster": np.where(live, layout.cluster, -1),
            "label": [one.label for one in words],
            "label_origin": [one.origin for one in words],
            "words": [list(one.words) for one in words],
            "dead": ~live,
        }
    )


def _delta(context: Context) -> pd.DataFrame:
    """Rows of `delta.parquet` of all models."""
    real, live, frames = stored_energy(context, REAL), live_concepts(context), []
    for name in context.recipe.models:
        model, index = stored_energy(context, name), pairing_of(context, name).pair_index
        paired = np.flatnonzero(index >= 0)
        gap = measure_gap(real, model, index[paired], paired)
        first, second = (statistics_of(context, source)["images_active"] for source in (REAL, name))
        frames.append(
            delta_table(name, Moments.of(real), Moments.of(model), gap, live, context.recipe.delta, (first, second))
        )
    return pd.concat(frames)


def _images(context: Context) -> pd.DataFrame:
    """Rows of `images.parquet`: the images of all sources by their global ids."""
    rows = [
        (name, number, image.caption, _beside(image.file, context.out), image.width, image.height, image.sha256)
        for name, numbers in pair_numbers(context).items()
        for image, number in zip(images_of(context, name), numbers, strict=True)
    ]
    columns = ["source", "pair", "caption", "file", "width", "height", "sha256"]
    return pd.DataFrame(rows, columns=columns).rename_axis("image").reset_index()


def _beside(file: str, out: Path) -> str:
    """How an atlas at `out` names an image's file: relative to the atlas if it lies beside it."""
    beside = os.path.isabs(file) and Path(file).is_relative_to(out.parent)
    return Path(os.path.relpath(file, out)).as_posix() if beside else file


def reference(ref: str, out: Path) -> str:
    """How an atlas at `out` names a model: relative if it lies beside the atlas, so that both can be moved together."""
    path = Path(ref)
    if path.exists() and path.is_relative_to(out.parent):
        return Path(os.path.relpath(path, out)).as_posix()
    return ref
