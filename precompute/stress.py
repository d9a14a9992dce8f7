"""The command `stress`: asks models for concepts in many prompts, and puts what comes out into the atlas."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import BlindspotError
from engine.files import DATA
from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AllowDownload, AtlasFolder, DeviceOption

if TYPE_CHECKING:
    from PIL import Image

    from engine.atlas.reader import Atlas
    from engine.pipelines.spec import PipelineSpec
    from engine.stress.prompts import PromptSet
    from engine.stress.testing import StressRequest, StressResult

DEMO_RECIPE = DATA / "recipes" / "demo.yaml"


def stress(
    atlas: AtlasFolder,
    concept: Annotated[
        list[int] | None, typer.Option("--concept", metavar="N...", help="Concepts, one or more in a row.")
    ] = None,
    suppressed: Annotated[
        int | None,
        typer.Option("--suppressed", min=1, help="Instead: so many concepts that each model suppresses most clearly."),
    ] = None,
    word: Annotated[
        str | None,
        typer.Option("--word", help="What captions call the concepts.", show_default="the concept's own label"),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="File of prompts: one a line, a JSON list, or a JSON object of lists by concept.",
            show_default="the captions that name the concept",
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option("--reader", help="Let a reader suggest the prompts, e.g. openai:MODEL or the id of a local one."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=2, max=500, help="Prompts of each concept.")] = 50,
    images: Annotated[int, typer.Option("--images", min=1, max=100, help="Images of each prompt.")] = 5,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="What models are compared with: a model, or real for the real images.",
            show_default="the model whose delta is nearest 0.5, of those that can draw it",
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Models to ask, several in a row.", show_default="all")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="The atlas's recipe, which names the pipelines.", show_default="the atlas's own"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of every pipeline.", show_default="the recipe's")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Image k of a prompt depends on (seed, prompt, k).")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for contact sheets and the prompts.", show_default="none")
    ] = None,
    device: DeviceOption = "auto",
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Ask every model for a concept in many prompts: is its blindspot true, or can it be prompted?

    Images are ranked by the concept's energy, and show it from a level that is set on real images. The atlas keeps the
    rates, their intervals and the best images, and cards show them. All images stay in ATLAS.stress.work, which can be
    deleted; the same command goes on where an interrupted one stopped, and tests further concepts of a word at once.
    """
    from engine.atlas.reader import Atlas
    from engine.atlas.writer import add_stress
    from engine.files import full_disk_explained
    from engine.hub import ALLOW
    from engine.stress.testing import StressRequest, run_stress_test
    from precompute.runner import WorkDirectory

    if allow_download:
        os.environ[ALLOW] = "1"
    opened = Atlas.open(atlas)
    request = StressRequest(images, seed, steps, against)
    pipelines = pipelines_of(opened, recipe)
    if unknown := sorted({*(model or ())} - pipelines.keys()):
        raise BlindspotError(f"There is no pipeline for {unknown[0]!r}: choose {', '.join(pipelines) or 'none'}.")
    asked = {name: spec for name, spec in pipelines.items() if not model or name in model}
    path = Path(os.path.abspath(atlas))
    work, run = (WorkDirectory(path.with_name(f"{path.name}{end}")) for end in (".stress.work", ".work"))
    # A run on the same atlas would replace it meanwhile.
    with (
        Reporter() as reporter,
        full_disk_explained(work.path),
        work.lock(),
        run.lock() if run.path.is_dir() else nullcontext(),
    ):
        sets, without = _prompt_sets(opened, concept or [], suppressed, word, prompts, reader, count, seed)
        bar = reporter.task("stress test", "images")

        def progress(done: int, total: int, new: list[Image.Image]) -> None:
            bar(done, total)

        bar(0, len({prompt for one in sets for prompt in one.prompts}) * images * len(asked))
        result = run_stress_test(opened, asked, sets, work.path, request, progress, device)
        result.skipped |= without
        add_stress(path, result.rows, result.strip, _described(pipelines, opened))
        sheets = _write_sheets(result, sets, out) if out is not None else []
    document = _document(path, opened, request, sets, result, out, sheets)
    if as_json:
        print_json(document)
    else:
        _print(document)


def pipelines_of(atlas: Atlas, recipe: Path | None) -> dict[str, PipelineSpec]:
    """The pipelines of an atlas's models: the recipe's, the header's, or those of the demo's recipe for the demo.

    Raises
    ------
    BlindspotError
        If nothing names one.
    """
    from engine.stress.images import pipelines_in
    from precompute.recipe import Pipeline, load_recipe

    named = recipe
    if named is None and atlas.info.pipelines:
        return pipelines_in(atlas)
    if named is None and DEMO_RECIPE.is_file() and atlas.info.name == (demo := load_recipe(DEMO_RECIPE)).name:
        named = DEMO_RECIPE if set(demo.models) == set(atlas.models) else None
    if named is None:
        raise BlindspotError(
            f"Atlas {atlas.info.called} does not say which pipelines drew its images: give --recipe RECIPE."
        )
    models = load_recipe(named).models
    found = {name: one for name, one in models.items() if isinstance(one, Pipeline) and name in atlas.models}
    if not found:
        raise BlindspotError(f"{named} names no pipeline of a model of this atlas: its images came from folders.")
    return dict(found)


def _described(pipelines: dict[str, PipelineSpec], atlas: Atlas) -> dict[str, Any]:
    """What the header says of pipelines; what it said before stays."""
    from precompute.stages.assemble import reference

    own = {
        name: spec.with_models(lambda _, ref: reference(ref, atlas.path)).to_dict() for name, spec in pipelines.items()
    }
    return own | dict(atlas.info.pipelines)


def _prompt_sets(
    atlas: Atlas,
    concepts: list[int],
    suppressed: int | None,
    word: str | None,
    file: Path | None,
    reader: str | None,
    count: int,
    seed: int,
) -> tuple[list[PromptSet], dict[int, str]]:
    """What to ask, and concept to why it cannot be asked for; a concept that was named must be."""
    from engine.stress.prompts import PromptSet, caption_prompts, read_prompts, reader_prompts, word_of

    if bool(concepts) == (suppressed is not None):
        raise BlindspotError("Give the concepts by --concept N, or --suppressed N.")
    if file is not None and reader is not None:
        raise BlindspotError("Give --prompts FILE or --reader SPEC, not both.")
    chosen = list(dict.fromkeys(concepts or most_suppressed(atlas, suppressed or 0)))
    words, without = dict[int, str](), dict[int, str]()
    for one in chosen:
        try:
            words[one] = word_of(atlas, one, word)
        except BlindspotError as error:
            if concepts:
                raise
            without[one] = str(error)
    if not words:
        raise BlindspotError(next(iter(without.values()), "No model suppresses a concept here."))
    if file is not None:
        given = read_prompts(file, list(words))
        return [PromptSet(one, said, given[one], "file") for one, said in words.items()], without
    if reader is not None:
        from engine.readers.cache import answers_file
        from engine.readers.loading import load_reader

        return reader_prompts(load_reader(reader, cache=answers_file(atlas.path)), words, count), without
    return [caption_prompts(atlas, one, said, count, seed) for one, said in words.items()], without


def most_suppressed(atlas: Atlas, count: int) -> list[int]:
    """The concepts that each model suppresses most clearly, at most `count` of each, those with q < 0.05 only."""
    from engine.figures.tables import certain, most_different
    from engine.reports.base import concept_table

    used, found = atlas.info.delta, dict[int, None]()
    for name in atlas.models:
        table = concept_table(atlas, name, used.estimator, used.temperature)
        table = table[certain(table) & (table["delta"] < 0.5)]
        found |= dict.fromkeys(most_different(table, "suppressed", count).index.tolist())
    return list(found)


def _write_sheets(result: StressResult, sets: list[PromptSet], out: Path) -> list[Path]:
    """Write `CONCEPT-MODEL.png` and `prompts.json`; returns the contact sheets."""
    from engine.files import write_json, write_whole

    files = []
    for concept, name in result.ranked:
        file = out / f"{concept}-{name}.png"
        write_whole(file, partial(result.sheet(concept, name).save, format="PNG"))
        files.append(file)
    write_json(out / "prompts.json", {str(one.concept): list(one.prompts) for one in sets})
    return files


def _document(
    path: Path,
    atlas: Atlas,
    request: StressRequest,
    sets: list[PromptSet],
    result: StressResult,
    out: Path | None,
    sheets: list[Path],
) -> dict[str, Any]:
    """The result as JSON."""
    rows, labels = result.rows.astype(object).where(result.rows.notna(), None), atlas.concepts["label"]
    shared = ["concept", "word", "level", "real_rate", "real_control", "prompts_from"]
    concepts = []
    for one in sets:
        own = rows[rows["concept"] == one.concept]
        if len(own):
            first = own.iloc[0][shared].to_dict() | {"label": labels[one.concept], "asked": len(one.prompts)}
            concepts.append(first | {"models": own.drop(columns=shared).to_dict("records")})
    return {
        "atlas": str(path), "images_of_a_prompt": request.per_prompt, "seed": request.seed, "concepts": concepts,
        "skipped": result.skipped, "out": None if out is None else str(out), "sheets": list(map(str, sheets)),
        "seconds": round(result.seconds, 1),
    }  # fmt: skip


def _print(document: dict[str, Any]) -> None:
    for one in document["concepts"]:
        typer.echo(
            f"Concept {one['concept']} ({one['label']}): {one['asked']} prompts for “{one['word']}” from "
            f"{one['prompts_from']}. Level {one['level']:.3g}: reached by {one['real_rate']:.0%} of held-out real "
            f"images with the word, {one['real_control']:.0%} without."
        )
        for row in one["models"]:
            judged = f", judge {row['recognised'] / row['judged']:.0%}" if row["judged"] else ""
            rise = "" if row["share"] is None else f", rise {row['share']:.2f} x that of {row['against']}"
            q = "" if row["p"] is None else f", q {row['q']:.2g}"
            typer.echo(
                f"  {row['model']:<16} {row['verdict']:<15} {row['rate']:.0%} [{row['ci_low']:.0%}, "
                f"{row['ci_high']:.0%}] of {row['images']} images, unasked {row['control']:.0%}, "
                f"{row['prompts_shown']} of {row['prompts']} prompts{rise}{q}{judged}"
            )
    for why in document["skipped"].values():
        typer.echo(f"- not tested: {why}")
    if document["sheets"]:
        typer.echo(f"{len(document['sheets'])} contact sheets in {document['out']}.")
