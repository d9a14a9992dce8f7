"""The command `invariants`: images that give the same response as a query image, as PNG files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.hub import ALLOW
from engine.invariance.request import InvariantRequest
from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AllowDownload, AtlasFolder, DeviceOption

if TYPE_CHECKING:
    from torch import Tensor

Usual = InvariantRequest


def invariants(
    atlas: AtlasFolder,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="What stays the same: concept:54, concept:54,60, code:54@12, codes, neuron:LAYER:CHANNEL, "
            "logit:PATH:CLASS, probability:PATH:CLASS or logits:PATH.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.", show_default=False)],
    image: Annotated[int | None, typer.Option("--image", help="Query: number of an image of the atlas.")] = None,
    value: Annotated[
        list[float] | None, typer.Option("--value", help="Instead of a query: the responses themselves.")
    ] = None,
    count: Annotated[int, typer.Option("--count", help="Members to draw.")] = Usual.count,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same members.")] = 0,
    steps: Annotated[int, typer.Option("--steps", help="Steps of the deterministic sampler.")] = Usual.steps,
    signal: Annotated[
        float,
        typer.Option(
            "--signal",
            help="Share of signal at the noise level where members are found: more is surer, less varies more.",
        ),
    ] = Usual.signal,
    method: Annotated[
        str, typer.Option("--method", help="walk, projection, or descent: the thesis's Algorithm 1.")
    ] = Usual.method,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Largest distance to the response, as a share of it.")
    ] = Usual.tolerance,
    walk: Annotated[int, typer.Option("--walk", help="Steps along the set from each member.")] = Usual.walk_steps,
    iterations: Annotated[int, typer.Option("--iterations", help="Most steps towards the set.")] = Usual.iterations,
    low_pass: Annotated[
        str,
        typer.Option(
            "--low-pass",
            help="Hold the response after these filters, too: auto (ideal:0.5 where it can be held), none, ideal:0.5, "
            "gaussian:0.1, butterworth:0.3:4 (in units of Nyquist); multi for descent.",
        ),
    ] = Usual.low_pass,
    optimiser: Annotated[
        str, typer.Option("--optimiser", help="Of descent: sgd, adam, adagrad or shampoo.")
    ] = Usual.optimiser,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of descent.")] = Usual.learning_rate,
    keep_norm: Annotated[
        bool, typer.Option("--keep-norm/--free-norm", help="Whether descent keeps a latent's norm, as DiG-IN does.")
    ] = Usual.keep_norm,
    choose: Annotated[
        int, typer.Option("--choose", help="Name so many members that differ most, by the atlas's encoder.")
    ] = Usual.choose,
    choice: Annotated[
        str, typer.Option("--choice", help="How they are chosen: farthest-first, or k-dpp: at random, apart.")
    ] = Usual.choice,
    device: DeviceOption = "auto",
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Draw images that a model cannot tell from a query image: f(x) = f(x*), through the atlas's prior."""
    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from engine.invariance.parsing import check_request

    if allow_download:
        os.environ[ALLOW] = "1"
    request = InvariantRequest(
        target, image, tuple(value or ()), count, seed, steps, signal, method, tolerance, walk, iterations, low_pass,
        optimiser, learning_rate, keep_norm, choose, choice,
    )  # fmt: skip
    opened = Atlas.open(atlas)
    check_request(opened, request)
    from engine.invariance.records import save_invariants
    from engine.invariance.sampling import sample_invariants

    with Reporter() as reporter, full_disk_explained(out):
        bar = reporter.task("members", "steps")

        def progress(done: int, total: int, images: Tensor | None) -> None:
            bar(done, total)

        result = sample_invariants(opened, request, device, progress, allow_download)
        files = save_invariants(result, out, str(opened.path))
    if as_json:
        print_json({"atlas": str(atlas), "out": str(out), **result.record()})
        return
    for file, member in zip(files, result.members, strict=True):
        said = "" if member.converged else "  not within the tolerance"
        typer.echo(f"{file}  response {_listed(member.responses)}  off by {member.residual:.2g}{said}")
    found = sum(member.converged for member in result.members)
    typer.echo(
        f"{found} of {len(files)} members within {request.tolerance:.1%} of {_listed(result.wanted)}, "
        f"{result.evaluations} evaluations of the prior, {result.seconds:.0f} s."
    )
    if result.chosen:
        typer.echo(f"The {len(result.chosen)} that differ most: {', '.join(files[row].name for row in result.chosen)}.")
    for group, title in (("varies", "differ in"), ("needed", "share")):
        if result.varies and result.varies[group]:
            typer.echo(f"They {title}: {', '.join(row['name'] for row in result.varies[group])}.")


def _listed(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:4])
    return shown if len(values) <= 4 else f"{shown} ... ({len(values)} responses)"
