"""What is installed, on which device work would run, and what a recipe still lacks: `doctor`, and `run --dry-run`."""

from __future__ import annotations

import inspect
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import BlindspotError
from engine.files import DATA
from precompute.console import ATLASES, AsJson, print_json

if TYPE_CHECKING:
    from precompute.plan import ModelPlan, Plan
    from precompute.recipe import Recipe

NEEDED = (
    *("torch", "numpy", "transformers", "diffusers", "accelerate", "safetensors", "huggingface_hub", "sentencepiece"),
    *("faiss", "streamlit", "pyarrow", "pandas", "sklearn", "umap", "PIL"),
)
OPTIONAL = {
    "peft": "LoRA adapters",
    "torchsde": "schedulers of stochastic differential equations",
    "ftfy": "cleaning of captions, with bs4",
    "bs4": "cleaning of captions, with ftfy",
    "ray": "clusters",
    "timm": "encoders of timm",
    "openai": "readers behind an endpoint",
    "pyiqa": "judges of quality",
    "lpips": "a judge of diversity",
    "pillow_heif": "HEIC",
    "pillow_jxl": "JPEG XL",
}
"""Packages by the name that is imported, and what they are for."""
DISTRIBUTIONS = {"sklearn": "scikit-learn", "umap": "umap-learn", "PIL": "pillow", "bs4": "beautifulsoup4"}
DISTRIBUTIONS |= {"pillow_jxl": "pillow-jxl-plugin"}
GIB = 2**30


def doctor(
    recipes: Annotated[
        list[Path] | None, typer.Argument(help="Recipes to look at.", show_default="those of this project")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, on which devices, and what each recipe lacks: weights, licences, packages, disk, memory.

    Nothing is loaded; of models on the Hugging Face hub only lists of files and configs are asked for.
    """
    from precompute.plan import device_memory, device_name, free_disk
    from precompute.recipe import read_yaml

    for path in recipes or ():
        if not path.exists():
            read_yaml(path)  # says so
    paths = recipes or [path for path in sorted((DATA / "recipes").glob("*.yaml")) if "encoder" in read_yaml(path)]
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in NEEDED},
        "optional": {name: _version(name) for name in OPTIONAL},
        "devices": [{"name": device_name(one), "memory": device_memory(one)} for one in _devices()],
        "disk_free": free_disk(Path.cwd()),
        "hub": _hub(),
        "recipes": {path.stem: _look_at(path, settings or []) for path in paths},
    }
    if as_json:
        print_json(found)
    else:
        _print_doctor(found)


def dry_run(recipe: Recipe, out: Path, as_json: bool) -> None:
    """Print what a run takes and lacks."""
    from precompute.plan import as_document, plan

    made = plan(recipe, out)
    missing = lacks(recipe, made)
    if as_json:
        print_json(as_document(made) | {"lacks": missing})
    else:
        _print_plan(made, missing)


def lacks(recipe: Recipe, made: Plan) -> list[str]:
    """What keeps a recipe from running here, in sentences; empty if nothing does, as far as names and configs show."""
    from engine.pipelines.loading import check_pipeline, pipeline_class
    from engine.priors.loading import check_prior
    from precompute.recipe import Pipeline
    from precompute.weights import stored_weights

    found = []
    problems = {one.model: one.problem for one in made.models}
    sources = {"real": ("real", recipe.real), **{f"models.{name}": (name, one) for name, one in recipe.models.items()}}
    for where, (name, model) in sources.items():
        if not isinstance(model, Pipeline):
            continue
        refs = {key: ref for key, ref in model.model_keys().items() if key != "pipeline"}
        absent = {f"{where}.{key}": (ref, _absence(ref)) for key, ref in refs.items()}
        absent[where] = (model.pipeline, problems[name])
        found += [f"{key}: {ref}: {why}." for key, (ref, why) in absent.items() if why]
        if any(why for _, why in absent.values()):
            continue
        try:
            check_pipeline(model)
            call = inspect.signature(pipeline_class(model).__call__).parameters.get("clean_caption")
            if call and model.call.get("clean_caption", call.default) and not (find_spec("ftfy") and find_spec("bs4")):
                found.append(f"{where}: captions are not cleaned without ftfy and beautifulsoup4.")
        except BlindspotError as error:
            found.append(f"{where}: {error}")
    others = {"encoder.id": recipe.encoder, "judge.id": recipe.judge}
    for key, block in others.items():
        if block and (why := stored_weights(block.id, block.revision).problem):
            found.append(f"{key}: {block.id}: {why}.")
    for key, prior in {"prior": recipe.prior, **{f"priors.{name}": one for name, one in recipe.priors.items()}}.items():
        if prior and (why := _absence(prior.id)):
            found.append(f"{key}.id: {prior.id}: {why}.")
        elif prior:
            try:
                check_prior(prior)
            except BlindspotError as error:
                found.append(f"{key}: {error}")
    if recipe.dictionary.load is not None and (why := _absence(str(recipe.dictionary.load))):
        found.append(f"dictionary.load: {recipe.dictionary.load}: {why}.")
    needed = (made.disk_total or 0) + made.fetch
    if needed > made.disk_free:
        found.append(f"Disk: about {_size(needed)} are needed, and {_size(made.disk_free)} are free.")
    for stage, bytes_ in made.memory.items():
        if bytes_ and bytes_ > made.memory_total:
            found.append(
                f"Memory: {stage} takes about {_size(bytes_)}, and {made.device} has {_size(made.memory_total)}."
            )
    return found


def _absence(ref: str) -> str:
    """Why a model is not to be had, in a few words; empty if it is."""
    from precompute.weights import stored_weights

    if Path(ref).expanduser().exists():
        return ""
    return stored_weights(ref).problem


def _look_at(path: Path, settings: list[str]) -> dict[str, Any]:
    """What a recipe lacks and takes; images that it leaves to be named are not missed."""
    from precompute.plan import plan
    from precompute.recipe import load_recipe, read_yaml

    try:
        raw, given = read_yaml(path), [setting.partition("=")[0] for setting in settings]
        named = [] if "real" in raw or any(key.split(".")[0] == "real" for key in given) else ["real=photos"]
        if not raw.get("models") and not any(key.startswith("models") for key in given):
            named.append("models.mine=generated")
        recipe = load_recipe(path, [*settings, *named])
        made = plan(recipe, ATLASES / recipe.name)
        missing = lacks(recipe, made)
    except BlindspotError as error:
        return {"ready": False, "lacks": [str(error)], "fetch": 0, "disk": None, "hours": None}
    return {
        "ready": not missing,
        "lacks": missing,
        "fetch": made.fetch,
        "disk": made.disk_total,
        "hours": made.hours_total,
    }


def _version(name: str) -> str | None:
    try:
        return version(DISTRIBUTIONS.get(name, name)) if find_spec(name) else None
    except PackageNotFoundError:  # of another distribution, such as faiss-gpu
        return "installed"


def _devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))] + (
        ["mps"] if torch.backends.mps.is_available() else []
    )


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants, get_token

    offline = bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE") == "1"
    return {"offline": offline, "logged_in": get_token() is not None, "cache": constants.HF_HUB_CACHE}


def _print_doctor(found: dict[str, Any]) -> None:
    typer.echo(f"Python {found['python']}")
    for group, what in (("packages", {}), ("optional", OPTIONAL)):
        for name, number in found[group].items():
            use = f"  ({what[name]})" if name in what else ""
            typer.echo(f"  {DISTRIBUTIONS.get(name, name):16s} {number or 'not installed'}{use}")
    for device in found["devices"]:
        typer.echo(f"Device {device['name']}: {_size(device['memory'])} of memory")
    typer.echo(f"Disk: {_size(found['disk_free'])} free here")
    hub = found["hub"]
    state = "offline (HF_HUB_OFFLINE)" if hub["offline"] else "logged in" if hub["logged_in"] else "not logged in"
    typer.echo(f"Hugging Face hub: {state}; models are kept in {hub['cache']}")
    for name, one in found["recipes"].items():
        fetch = f", {_size(one['fetch'])} to fetch" if one["fetch"] else ""
        disk = f", about {_size(one['disk'])} of disk" if one["disk"] else ""
        typer.echo(f"\nRecipe {name}: {'ready' if one['ready'] else 'lacks'}{fetch}{disk}")
        for sentence in one["lacks"]:
            typer.echo(f"  - {sentence}")


def _print_plan(made: Plan, missing: list[str]) -> None:
    typer.echo(f"{made.recipe} at {made.out}, on {made.device}. Nothing was loaded; hours are estimates.")
    typer.echo(f"Images: {_count(made.real_images)} real, {_count(made.images)} in all")
    for model in made.models:
        typer.echo(f"  {model.model}: {_described(model)}")
    parts = ", ".join(f"{name} {_size(size)}" for name, size in made.disk.items())
    typer.echo(f"Disk: {_size(made.disk_total)} ({parts}); {_size(made.fetch)} to fetch; {_size(made.disk_free)} free")
    parts = ", ".join(f"{stage} {_size(size)}" for stage, size in made.memory.items())
    typer.echo(f"Memory: {parts}; {_size(made.memory_total)} there")
    parts = ", ".join(f"{stage} {_hours(hours)}" for stage, hours in made.hours.items())
    typer.echo(f"Hours: {_hours(made.hours_total)} ({parts})")
    for sentence in missing:
        typer.echo(f"- {sentence}")


def _described(model: ModelPlan) -> str:
    drawn = f" ({model.drawn:,} drawn already)" if model.drawn else ""
    weights = f"weights {_size(model.weights)}{'' if model.here else ', to fetch'}" if model.weights else model.problem
    return (
        f"{_count(model.images)} images{drawn}, {model.steps} steps, {model.height} x {model.width}, {weights}, "
        f"{_hours(model.hours)} hours"
    )


def _count(number: int | None) -> str:
    return "an unknown number of" if number is None else f"{number:,}"


def _size(number: int | None) -> str:
    if number is None:
        return "unknown"
    return f"{number / GIB:,.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:,.1f} MiB"


def _hours(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,.2g}" if number < 10 else f"{number:,.0f}"
