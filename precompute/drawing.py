"""The commands that draw concepts: `sample` writes images to a folder, `gallery` those of many into the atlas."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import BlindspotError
from engine.hub import ALLOW
from engine.samplers.generation import GenerationRequest
from precompute.console import AsJson, ProgressBar, Reporter, print_json

if TYPE_CHECKING:
    from engine.samplers.base import StepEvent

AtlasFolder = Annotated[Path, typer.Argument(help="Folder of an atlas.", show_default=False)]
Method = Annotated[
    str, typer.Option("--method", help="How: energy-guidance, energydps, retrieval ...; a wrong one lists all.")
]
Count = Annotated[int, typer.Option("--count", help="Images to draw of each; sample draws up to 10,000.")]
Seed = Annotated[int, typer.Option("--seed", help="Image i depends on (seed, i) alone.")]
Steps = Annotated[int, typer.Option("--steps", help="Reverse steps.")]
Strength = Annotated[float, typer.Option("--strength", help="How hard to push; 0 draws from the prior alone.")]
Particles = Annotated[int, typer.Option("--particles", help="Particles behind each sample of energydps-smc.")]
States = Annotated[int, typer.Option("--states", help="States that each sample of energy-guidance begins as.")]
Matching = Annotated[
    bool, typer.Option("--match", help="Find the strength whose mean score is that of the four best real images.")
]
Level = Annotated[
    float, typer.Option("--level", help="With --match: the mean score to find, as a share of the real images'.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where to draw: auto (the first CUDA GPU, or else the CPU), cpu, cuda, cuda:1.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Precision of encoder and prior on a GPU: float32 or bfloat16.", show_default="float32"
    ),
]
PriorOption = Annotated[
    str | None, typer.Option("--prior", help="Name of the diffusion prior, of several.", show_default="the first")
]
TextEncoder = Annotated[
    str | None,
    typer.Option(
        "--text-encoder",
        help="Folder or hub id of a CLIP, SigLIP or their like.",
        show_default="the atlas's encoder, if it is one",
    ),
]
LikeBy = Annotated[
    str, typer.Option("--by", help="What images are compared by: encoder (cosine) or pixels (squared error).")
]
AllowDownload = Annotated[
    bool,
    typer.Option("--allow-download", help="Load any model the atlas names, from the hub too: trust it first."),
]


def sample(
    atlas: AtlasFolder,
    concept: Annotated[
        list[int], typer.Option("--concept", help="Number of the concept; several for a set.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.", show_default=False)],
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", help="Of each concept in their order, or of all but the first.", show_default="1"),
    ] = None,
    method: Method = GenerationRequest.method,
    match: Matching = False,
    level: Level = GenerationRequest.level,
    strength: Strength = GenerationRequest.strength,
    cap: Annotated[
        float | None,
        typer.Option(
            "--cap",
            help="Score beyond which no sample is pushed, and the strength's unit.",
            show_default="from the best real images",
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            help="Share of the way to the image that energy-guidance guides, half of it choosing among its states.",
            show_default="1, with --match 0.8",
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            "--gradient",
            help="How the score's gradient is scaled: raw, unit or eps.",
            show_default="raw for energydps, eps for energy-guidance",
        ),
    ] = None,
    zeta: Annotated[
        float | None,
        typer.Option("--zeta", help="Step size of the raw gradient.", show_default="the step's variance"),
    ] = None,
    steps: Steps = GenerationRequest.steps,
    particles: Particles = GenerationRequest.particles,
    states: States = GenerationRequest.candidates,
    count: Count = GenerationRequest.count,
    seed: Seed = 0,
    prior: PriorOption = None,
    text: Annotated[str | None, typer.Option("--text", help="What the images should show, too.")] = None,
    text_encoder: TextEncoder = None,
    like: Annotated[
        str | None, typer.Option("--like", help="An image to resemble, too: its number in the atlas, or a file.")
    ] = None,
    by: LikeBy = "encoder",
    task_weight: Annotated[
        float | None,
        typer.Option(
            "--task-weight",
            help="What a unit of the text's or image's cosine is worth in score, η/β.",
            show_default="the best real images' mean score",
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Draw images that excite a concept of an atlas, or a weighted set, as PNG files with their scores.

    Images are written as they come. The same command goes on where an interrupted one stopped.
    """
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from engine.samplers.batches import draw_into
    from engine.samplers.calibration import standard_error
    from engine.samplers.generation import MAX_AT_ONCE
    from engine.samplers.recognition import recognition_sentence, verdicts
    from engine.samplers.records import drawn_with, reproduction_command, tilt_sentence

    if allow_download:
        os.environ[ALLOW] = "1"
    opened, weights = Atlas.open(atlas), tuple(weight or ())
    if len(weights) == len(concept) - 1:
        weights = (1.0, *weights)
    with Reporter() as reporter, full_disk_explained(out):
        bar = reporter.task(f"concept {', '.join(map(str, concept))}", "steps")
        request = GenerationRequest(
            concept[0], method, count, seed, tuple(concept[1:]), weights, match=match, level=level, steps=steps,
            strength=strength, particles=particles, candidates=states, score_cap=cap, guidance_end=until,
            gradient=gradient, zeta=zeta, prior=prior, text=text, text_encoder=text_encoder, like=like, like_by=by,
            task_weight=task_weight,
        )  # fmt: skip
        report = step_reporter(bar, "trial" if match else "batch")
        record = draw_into(out, opened, request, device, report, dtype)
    scores, settings = record["scores"], record["parameters"]
    mean, error = statistics.fmean(scores), standard_error(scores) if len(scores) > 1 else None
    if as_json:
        print_json({"atlas": str(atlas), "out": str(out), **record, "mean_score": mean, "standard_error": error})
        return
    judged = record["recognition"]
    seen = judged["recognised"] if judged and judged["recognised"] else [None] * len(scores)
    notes = verdicts(seen, scores, record["reference_score"])
    for name, score, note in zip(record["images"][:MAX_AT_ONCE], scores, notes, strict=False):
        typer.echo(f"{out / name}  score {score:.3f}" + (f"  {note}" if note else ""))
    if len(scores) > MAX_AT_ONCE:
        typer.echo(f"... and {len(scores) - MAX_AT_ONCE} more, see {out / 'drawing.json'}.")
    typer.echo(f"Mean score {mean:.3f}" + ("." if error is None else f", standard error {error:.3f}."))
    typer.echo(f"{settings['method']}: {drawn_with(record)}.")
    if record["task_scores"] is not None:
        served = f"Mean task score {statistics.fmean(record['task_scores']):.3f}"
        typer.echo(f"{served}, of which a unit was worth {settings['task_weight']:.4g} of score.")
    if record["reference_score"] is not None:
        typer.echo(
            f"The {len(record['references'])} best real images score {record['reference_score']:.3f} on average."
        )
    if judged is not None:
        typer.echo(f"{recognition_sentence(judged['label'], judged['recognised'], judged['missing']).rstrip('.')}.")
    if record["tilt"] is not None:
        typer.echo(f"{tilt_sentence(record['tilt'])}.")
    if (found := record["matched"]) is not None:
        typer.echo(
            f"Strength {found['strength']:.4g} reaches {found['mean']:.3f} (standard error "
            f"{found['standard_error']:.3f} over {found['samples']} images), found in {found['evaluations']} trials."
        )
        typer.echo(f"The same images without the search: {reproduction_command(settings, atlas)}")


def gallery(
    atlas: AtlasFolder,
    concepts: Annotated[
        int | None, typer.Option("--concepts", min=1, help="How many: those that models miss or overdo most.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All live concepts.")] = False,
    method: Method = GenerationRequest.method,
    match: Matching = False,
    strength: Strength = GenerationRequest.strength,
    steps: Steps = GenerationRequest.steps,
    particles: Particles = GenerationRequest.particles,
    states: States = GenerationRequest.candidates,
    count: Count = GenerationRequest.count,
    seed: Seed = 0,
    prior: PriorOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Draw many concepts into the atlas, so that their cards show samples at once; resumes what was drawn.

    Drawings are kept in ATLAS.gallery.work, which can be deleted once the atlas has them. Concepts that are not drawn
    this time keep the samples they have.
    """
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from precompute.gallery import DEFAULT, draw_gallery

    if allow_download:
        os.environ[ALLOW] = "1"
    if concepts is not None and every:
        raise BlindspotError("Give --concepts N or --all, not both.")
    template = GenerationRequest(
        0, method, count, seed, match=match, steps=steps, strength=strength, particles=particles, candidates=states,
        prior=prior,
    )  # fmt: skip
    Atlas.open(atlas)
    with Reporter() as reporter, full_disk_explained(atlas):
        bar = reporter.task("gallery", "images")
        made = draw_gallery(atlas, template, None if every else concepts or DEFAULT, bar, device, dtype)
    if as_json:
        print_json(made.as_document())
        return
    typer.echo(f"{made.atlas}: {made.concepts} concepts have samples ({made.drawn} drawn, {made.kept} kept).")
    for concept, why in made.skipped.items():
        typer.echo(f"- not concept {concept}: {why}")


def step_reporter(bar: ProgressBar, unit: str) -> Callable[[StepEvent], None]:
    """Return a callback that moves a bar, which starts anew with each trial or batch; a unit numbers these."""
    runs = 0

    def report(event: StepEvent) -> None:
        nonlocal runs
        if event.step == 1:
            runs += 1
            if unit and runs > 1:
                bar.note(f"{unit} {runs}")
        bar(event.step, event.steps)

    return report
