"""The commands that take in what others published: dictionaries, the tables of Conceptual Blindspots, ADM weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from precompute.console import AsJson, print_json


def import_dictionary(
    src: Annotated[
        str, typer.Argument(help="File, folder, or hub id (owner/name/folder@revision).", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the dictionary.", show_default=False)],
    kind: Annotated[
        str, typer.Option("--kind", help="auto, overcomplete, saev, sparsify, dictionary_learning or saelens.")
    ] = "auto",
    sparsity: Annotated[
        int | None,
        typer.Option("--sparsity", help="k of a TopK whose file does not say it; else the most codes kept per token."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Threshold of an overcomplete BatchTopK.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a dictionary that others published into ours, and list what was assumed; no code in it is ever run."""
    from dataclasses import asdict

    from engine.dictionary.published import Options, import_dictionary
    from engine.files import full_disk_explained

    with full_disk_explained(out):
        report = import_dictionary(src, out, kind, Options(sparsity, threshold))
    if as_json:
        print_json({"out": str(out), **asdict(report)})
        return
    typer.echo(f"{out}: {report.concepts} concepts of width {report.dim}, from {report.kind}. Assumed:")
    for topic, sentence in report.assumed.items():
        typer.echo(f"- {topic}: {sentence}")


def import_saediff(
    files: Annotated[
        list[Path],
        typer.Argument(help="The authors' `__enriched.json` files, one per model.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the atlas.", show_default=False)],
    images_url: Annotated[
        str | None,
        typer.Option(
            "--images-url",
            metavar="URL",
            help="Address of the folder with sample_0, sample_1 ...; {model} stands for the model in a file's name.",
        ),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Name of a model, once per file and in their order.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn the statistics that the authors of Conceptual Blindspots published into an atlas, and list what was assumed.

    Such an atlas has a map, rankings, co-occurrences and comparisons, but no images, intervals, p or q. Nothing is
    fetched: images are links, and the app asks before it loads one.
    """
    from dataclasses import asdict

    from engine.files import full_disk_explained
    from precompute.saediff.importing import import_saediff

    with full_disk_explained(out):
        made = import_saediff(files, out, names=names or (), images_url=images_url)
    if as_json:
        print_json(asdict(made))
        return
    typer.echo(f"{made.out}: {made.live} of {made.concepts} concepts on the map, models {', '.join(made.models)}.")
    typer.echo(f"{made.connections} co-occurrences, {made.links} image links. Assumed:")
    for topic, sentence in made.assumed.items():
        typer.echo(f"- {topic}: {sentence}")
    typer.echo(f"Not published: {'; '.join(made.missing)}.")


def convert_adm(
    src: Annotated[Path, typer.Argument(help="A checkpoint such as 256x256_diffusion_uncond.pt.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="New folder for the network.", show_default=False)],
    image_size: Annotated[int, typer.Option("--image-size", help="Side of its images in pixels.")] = 256,
    noise: Annotated[str, typer.Option("--noise", help="Its noise schedule: linear or cosine.")] = "linear",
    heads: Annotated[
        int | None, typer.Option("--heads", help="Heads of every attention.", show_default="64 channels a head")
    ] = None,
    qkv: Annotated[str, typer.Option("--qkv", help="Order of the attention's channels: legacy or new.")] = "legacy",
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint of OpenAI's guided-diffusion into a prior of kind adm; no code in it is ever run.

    The defaults are those of the 256 x 256 models. The 128 x 128 model needs --image-size 128 --heads 4, the 64 x 64
    one --image-size 64 --noise cosine --qkv new.
    """
    from dataclasses import asdict

    from engine.files import full_disk_explained
    from engine.priors.adm_conversion import ADMAssumptions
    from engine.priors.adm_conversion import convert_adm as convert

    with full_disk_explained(out):
        made = convert(src, out, ADMAssumptions(image_size, heads, cast(Any, qkv), noise))
    if as_json:
        print_json({"out": str(out), **asdict(made)})
        return
    config = made.config
    classes = f"{config.classes} classes" if config.classes else "unconditional"
    variance = "learned" if config.learned_variance else "fixed"
    typer.echo(f"{out}: {made.parameters:,} parameters, {classes}, {variance} variance.")
    typer.echo(
        f"Assumed: {config.image_size} x {config.image_size} pixels, {noise} noise, "
        f"{f'{heads} heads' if heads else '64 channels a head'}, {qkv} attention order."
    )
