"""The stages of a recipe, in order, and the run that makes an atlas of them.

    corpus/S, or generate/S -> encode/S -> energies/S ----------\\
       |        \\              |          ^       \\              v
       |     pairing/S     dictionary -----'    layout, index -> assemble -> the atlas
       '---> thumbs/S            '--> report    words ----------^

    corpus/real, energies, the recipe's judge -> recognition -> assemble

    energies, pairing, encode -> divergence/M --------.
    energies, pairing -> composition/real -> .../M ----+-> assemble
    energies, pairing, encode -> metrics/S -----------'

A new stage is a file in `precompute/stages` with a subclass of `Stage`, and a line in `stages_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.atlas.schema import REAL
from engine.errors import printable
from engine.files import write_json, write_whole
from engine.hub import remember_model
from precompute.engines import engine_named
from precompute.recipe import Folder, Pipeline, Recipe
from precompute.runner import Build, Context, Progress, Stage, WorkDirectory, build_stages
from precompute.stages.assemble import AssembleStage
from precompute.stages.composition import CompositionStage
from precompute.stages.corpus import CorpusStage, count_skipped, images_of, read_skipped, read_unread_captions
from precompute.stages.dictionary import DictionaryStage
from precompute.stages.divergence import DivergenceStage
from precompute.stages.encode import EncodeStage
from precompute.stages.energies import EnergiesStage
from precompute.stages.generate import GenerateStage
from precompute.stages.layout import LayoutStage
from precompute.stages.metrics import MetricsStage
from precompute.stages.neighbours import NeighboursStage
from precompute.stages.pairing import PairingStage, pairing_of
from precompute.stages.recognition import RecognitionStage
from precompute.stages.report import ReportStage
from precompute.stages.thumbnails import ThumbnailsStage
from precompute.stages.words import WordsStage


def stages_of(context: Context) -> list[Stage]:
    """All stages, each after those it reads; what is wrong with the inputs shows before the long work starts."""
    models, sources = context.recipe.models, context.sources
    folders = [name for name, model in models.items() if isinstance(model, Folder)]
    pipelines = [name for name in models if name not in folders]
    reference = GenerateStage if isinstance(context.source(REAL), Pipeline) else CorpusStage
    stages: list[Stage] = [
        reference(context, REAL),
        *(CorpusStage(context, name) for name in folders),
        *(PairingStage(context, name) for name in folders),
        EncodeStage(context, REAL),
        *(GenerateStage(context, name) for name in pipelines),
        *(PairingStage(context, name) for name in pipelines),
        *(EncodeStage(context, name) for name in models),
        DictionaryStage(context),
        *(EnergiesStage(context, name) for name in sources),
        ReportStage(context),
        LayoutStage(context),
        NeighboursStage(context),
        WordsStage(context),
        *([RecognitionStage(context)] if context.recipe.judge else []),
        *analysis_stages(context),
        *(ThumbnailsStage(context, name) for name in sources),
    ]
    return [*stages, AssembleStage(context, stages)]


def analysis_stages(context: Context) -> list[Stage]:
    """The stages of the analyses beyond delta: pairs of images, pairs of concepts, scalar metrics."""
    return [
        *(DivergenceStage(context, name) for name in context.recipe.models),
        *(CompositionStage(context, name) for name in context.sources),
        *(MetricsStage(context, name) for name in context.sources),
    ]


def build(recipe: Recipe, out: Path, progress: Callable[[Stage], Progress], engine: str = "local") -> Build:
    """Run what is not done yet of a recipe and put the atlas at `out`; parameters and errors as for `build_stages`.

    `engine` names what computes the images' part, see `precompute.engines`.
    """
    with engine_named(engine) as chosen:
        made = build_stages(out, lambda work, where: stages_of(Context(recipe, work, where, chosen)), progress)
    models = [recipe.encoder, recipe.prior, *recipe.priors.values(), recipe.judge]
    pipelines = [model for model in (recipe.real, *recipe.models.values()) if isinstance(model, Pipeline)]
    drawn = [ref for model in pipelines for ref in model.model_keys().values()]
    for model in (*drawn, *(block.id for block in models if block is not None)):
        if Path(model).is_absolute():
            remember_model(model)
    context = Context(recipe, WorkDirectory(made.work), made.out)
    return replace(made, skipped=_list_skipped(context), counts=_count(context))


def _count(context: Context) -> dict[str, Any]:
    """What each source's images, captions and pairs came to; also written to `sources.json` in the work directory."""
    counts = {}
    for name in context.sources:
        folder, images = context.folder(context.images_stage(name)), images_of(context, name)
        counts[name] = {
            "images": len(images),
            "captions": sum(bool(image.caption) for image in images),
            "pairs": int((pairing_of(context, name).pair_index >= 0).sum()) if name != REAL else None,
            "skipped": count_skipped(folder),
            **sampled_from(context, name),
            "captions not read": [one.reason for one in read_unread_captions(folder)],
        }
    write_json(context.work.path / "sources.json", counts)
    return counts


def sampled_from(context: Context, name: str) -> dict[str, int]:
    """How many images a source's sample was drawn from, and with which seed, if it was sampled."""
    total = context.work.summary(context.images_stage(name)).get("sampled_from")
    return {} if total is None else {"sampled_from": total, "seed": context.recipe.limits.seed}


def _list_skipped(context: Context) -> Path | None:
    """Write `skipped.tsv` into the work directory: source, file and reason of what was left out or not read."""
    path = context.work.path / "skipped.tsv"
    rows = []
    for name in context.sources:
        folder = context.folder(context.images_stage(name))
        listed: list[Any] = [*read_skipped(folder), *read_unread_captions(folder)]
        rows += [(name, one.file, one.reason) for one in listed]
    if not rows:
        path.unlink(missing_ok=True)
        return None
    # A name may hold a tab or a line break.
    lines = ["\t".join(re.sub(r"\s", " ", printable(cell)) for cell in row) + "\n" for row in rows]
    write_whole(path, lambda partial: partial.write_text("source\tfile\treason\n" + "".join(lines), encoding="utf-8"))
    return path
