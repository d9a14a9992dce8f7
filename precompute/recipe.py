"""Recipes: what one may say, reading its YAML, applying `--set key=value`, saying what is wrong in a sentence.

Every field is documented below it; the blocks of models are the classes of the engine that use them. Paths in a recipe
are relative to the recipe's file, paths in `--set` to the working directory.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from engine.atlas.schema import DEFAULT_PRIOR
from engine.blindspots.delta import DeltaSettings
from engine.dictionary.spec import DictionarySpec
from engine.errors import BlindspotError
from engine.files import DATA
from engine.hub import HUB_ID
from engine.pipelines.spec import PipelineSpec
from engine.priors.spec import PriorSpec
from engine.vision.spec import EncoderConfig, JudgeSpec

KeyPath = tuple[str, ...]
"""Keys from the recipe's top to a value; `*` stands for any key."""
FOLDER_KEYS: tuple[KeyPath, ...] = (
    *(("real", key) for key in ("folder", "urls", "captions")),
    ("models", "*", "folder"),
)
"""Keys whose value is always a folder or file."""
MODEL_KEYS: tuple[KeyPath, ...] = (
    *(
        (*of, key)
        for of in (("real",), ("models", "*"))
        for key in ("pipeline", "config", "unet", "lora", "textual_inversion")
    ),
    ("real", "dataset"),
    ("dictionary", "load"),
    ("encoder", "id"),
    ("prior", "id"),
    ("judge", "id"),
    ("priors", "*", "id"),
)
"""Keys whose value is a folder or a Hugging Face id, or a block or list of blocks with one as `id`."""
PRESETS = ("paper.yaml", "current.yaml")
"""Recipes of this project whose models others can name: `models: {mine: {preset: NAME}}` stands for the keys of that
model, and other keys beside it come first, such as `pipeline` with a mirror or a folder."""
SHORTHANDS: tuple[KeyPath, ...] = (("real",), ("models", "*"))
"""Keys where a plain string means `{folder: string}`."""


ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://|hf-hub:)")
"""How an address begins."""
LARGEST, DEEPEST, MOST_VALUES = 1 << 20, 50, 100_000
"""Bytes of a recipe, its levels, and its values with those that YAML repeats."""
UNUSABLE = re.compile(r"[\0\ud800-\udc7f\udd00-\udfff]")
"""NUL and halves of characters, except those that stand for bytes of a file's name."""


class RecipeBlock(BaseModel):
    """A block of a recipe: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSource(RecipeBlock):
    """How a source of images is named in the app."""

    label: str | None = None
    """Shown instead of the source's key."""
    description: str = ""
    """A sentence for the overview page."""


class Folder(ImageSource):
    """Images in a folder, searched with its subfolders."""

    folder: Path
    """Holds images, and captions if there are any (tables called metadata or captions, or a .txt per image)."""
    pairing: Literal["auto", "stem", "caption", "none"] = "auto"
    """How a generated image finds its real one: `stem` (file name) and `caption` insist, `auto` tries both."""


class World(ImageSource):
    """Scenes that are drawn by code, with their ground truth."""

    world: Literal["tabletop"]
    count: Annotated[int, Field(ge=1)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=16, le=1024)] = 64
    """Side of an image in pixels."""


class Dataset(ImageSource):
    """Images of a data set that Hugging Face `datasets` reads (the extra `datasets`), some rows at a time."""

    dataset: str
    """A folder of images, of parquet files with a column of images or of webdataset shards (.tar); one such file or a
    pattern such as `shards/*.tar`; or an id of the hub, which is streamed."""
    config: str | None = None
    """One of a hub data set's configurations."""
    split: str = "train"
    revision: str | None = None
    """Hub commit, tag or branch."""
    image: str | None = None
    """Column with the images; the first one that holds images if not given."""
    caption: str | None = None
    """Column with the captions; `caption`, `text` or its like if not given."""
    licence: str | None = None
    """Column with the licence; `licence` or `license` if not given."""
    url: str | None = None
    """Column with the address that an image comes from; `url` if not given."""


class Urls(ImageSource):
    """Images that a table of addresses names, such as LAION's; those that cannot be had are left out and listed."""

    urls: Path
    """A parquet, csv, tsv or jsonl file, or a folder of them. Rows that a column such as NSFW or punsafe flags are
    never asked for."""
    url: str | None = None
    """Column with the addresses; `url` if not given."""
    caption: str | None = None
    """Column with the captions; `caption`, `text` or its like if not given."""
    licence: str | None = None
    """Column with the licence; `licence` or `license` if not given."""
    max_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 20_000_000
    """Larger files are left out."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Seconds for one image."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Images fetched at once."""
    allow_networks: tuple[str, ...] = ()
    """Networks that are not public and may be asked all the same, such as `127.0.0.1/32` in a test."""

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"has {network!r}, which is no network such as 10.0.0.0/8") from None
        return networks


class Pipeline(ImageSource, PipelineSpec):
    """Images drawn by a diffusers text-to-image pipeline from the captions of the real images."""


class DrawnReference(Pipeline):
    """Images of one model in the place of the real ones, so that the others are compared with it."""

    captions: Path
    """A text file, UTF-8, with a caption in each line; all models draw them."""


class LayoutConfig(RecipeBlock):
    """The concept map."""

    seed: Annotated[int, Field(ge=0)] = 0
    neighbours: Annotated[int, Field(ge=2)] = 15
    min_dist: Annotated[float, Field(ge=0, le=1)] = 0.1
    clusters: Annotated[int, Field(ge=1)] = 12


class WordsConfig(RecipeBlock):
    """Words that name a concept."""

    count: Annotated[int, Field(ge=0)] = 8
    """Words kept per concept."""


class CompositionConfig(RecipeBlock):
    """Which concepts occur together."""

    rows: Literal["image", "token"] = "image"
    """`image`: Z has a row per image, its energies, as in "Conceptual Blindspots in Generative Image Models", section
    3; `token`: a row per token, its codes, so that concepts occur together only in one place."""


class Limits(RecipeBlock):
    """How much is taken in."""

    images: Annotated[int | None, Field(ge=1)] = None
    """At most this many images per source: a random sample of a folder, in order of file name. Of a model's folder
    those that are paired with the real ones that were taken."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of that sample."""
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    """Larger images are skipped, counted and listed."""


class ThumbnailConfig(RecipeBlock):
    """The small pictures the app shows."""

    size: Annotated[int, Field(ge=16, le=1024)] = 224
    """Longest side in pixels; smaller images keep their size."""


def _tag(value: Any) -> str | None:
    """Which kind of source a block describes, by the one key that only this kind has."""
    if isinstance(value, ImageSource):
        return "<Pipeline>" if isinstance(value, Pipeline) else f"<{type(value).__name__}>"
    found = [tag for tag, kind in TAGS.items() if isinstance(value, Mapping) and kind.__name__.lower() in value]
    return found[0] if len(found) == 1 else None


TAGS: dict[str, type[ImageSource]] = {f"<{kind.__name__}>": kind for kind in (Folder, World, Pipeline, Dataset, Urls)}

Real = Annotated[
    Annotated[Folder, Tag("<Folder>")]
    | Annotated[World, Tag("<World>")]
    | Annotated[Dataset, Tag("<Dataset>")]
    | Annotated[Urls, Tag("<Urls>")]
    | Annotated[DrawnReference, Tag("<Pipeline>")],
    Discriminator(_tag),
]
Model = Annotated[Annotated[Folder, Tag("<Folder>")] | Annotated[Pipeline, Tag("<Pipeline>")], Discriminator(_tag)]


class Recipe(RecipeBlock):
    """Everything that decides what is in an atlas."""

    name: str
    description: str = ""
    real: Real
    """The real images: `{folder: DIR}`, `{dataset: DIR, FILES OR HUB ID}`, `{urls: TABLE}` or `{world: tabletop, count:
    N, seed: S}`; a plain string is a folder. Or the reference is a model: `{pipeline: ID, captions: FILE}`."""
    models: dict[str, Model]
    """The generated ones: `NAME: {folder: DIR}` or `NAME: {pipeline: ID}`; a plain string is a folder."""
    encoder: EncoderConfig
    dictionary: DictionarySpec = DictionarySpec()
    layout: LayoutConfig = LayoutConfig()
    words: WordsConfig = WordsConfig()
    delta: DeltaSettings = DeltaSettings()
    composition: CompositionConfig = CompositionConfig()
    prior: PriorSpec | None = None
    judge: JudgeSpec | None = None
    """Says whether drawings show what their concept stands for."""
    priors: dict[str, PriorSpec] = {}
    """Further priors by name, to choose from by `--prior NAME` and in the app; the one above is called `default`."""
    limits: Limits = Limits()
    thumbs: ThumbnailConfig = ThumbnailConfig()

    @field_validator("models")
    @classmethod
    def _names(cls, models: dict[str, Any]) -> dict[str, Any]:
        if not models:
            raise ValueError("needs at least one model, for example --set models.NAME=FOLDER")
        for name in models:
            if name == "real" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"has a model called {name!r}; use letters, digits, - and _, and not the name 'real'")
        return models

    @field_validator("priors")
    @classmethod
    def _prior_names(cls, priors: dict[str, PriorSpec]) -> dict[str, PriorSpec]:
        for name in priors:
            if name == DEFAULT_PRIOR or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(
                    f"has a prior called {name!r}; use letters, digits, - and _, and not the name {DEFAULT_PRIOR!r}"
                )
        return priors


def load_recipe(path: Path, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `settings`, each `a.b=value` with a YAML value.

    Raises
    ------
    BlindspotError
        If the file is missing or not YAML, or a key is unknown, missing or has a bad value.
    """
    read = read_yaml(path)
    _expect_plain(read, path.name)
    raw = _resolved(read, path.resolve().parent)
    raw.setdefault("name", path.stem)
    for setting in settings:
        raw = _with_setting(raw, setting)
    raw = _with_presets(raw)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise BlindspotError(f"{path.name}: {first_problem(error)}") from None


def presets() -> dict[str, dict[str, Any]]:
    """The models that a recipe can name as `preset`, as it would write them."""
    return {name: block for file in PRESETS for name, block in read_yaml(DATA / "recipes" / file)["models"].items()}


def _with_presets(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` with a preset's keys under those of each source that names one, and without models that are null."""
    if isinstance(raw.get("models"), Mapping):
        models = {key: one for key, one in raw["models"].items() if one is not None}
        raw = raw | {"models": {key: _with_preset(f"models.{key}", one) for key, one in models.items()}}
    return raw | {"real": _with_preset("real", raw["real"])} if "real" in raw else raw


def _with_preset(where: str, block: Any) -> Any:
    """A source's block with the keys of the preset that it names, under its own."""
    if not isinstance(block, Mapping) or "preset" not in block:
        return block
    name, known = block["preset"], presets()
    if name not in known:
        hint, allowed = _hint(str(name), list(known)), ", ".join(known)
        raise BlindspotError(f"'{where}.preset' cannot be {name!r}{hint}; allowed: {allowed}.")
    return known[name] | {field: value for field, value in block.items() if field != "preset"}


def _expect_plain(value: Any, where: str) -> None:
    """Raise `BlindspotError` for what no recipe says: keys that are no text, numbers beyond use, endless nesting."""
    waiting, seen = [(where, value, 0)], 0
    while waiting:
        place, value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise BlindspotError(f"{where} nests deeper or says more than a recipe can: shorten it.")
        if isinstance(value, Mapping):
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise BlindspotError(f"{place} has the key {str(wrong[0])[:50]!r}, which is no text: put it in quotes.")
            waiting += [(f"{place}: {key[:50]}", item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple | set):
            waiting += [(place, item, depth + 1) for item in value]
        elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 2**63):
            raise BlindspotError(f"{place} is {str(value)[:50]}: give a number of ordinary size.")
        elif isinstance(value, str) and UNUSABLE.search(value):
            raise BlindspotError(f"{place} is {value[:50]!r}, which holds a character that no name can have.")


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise BlindspotError(f"The recipe {path} is no regular file: give a YAML file.")
        if path.stat().st_size > LARGEST:
            raise BlindspotError(f"The recipe {path} has more than {LARGEST} bytes: give a shorter one.")
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BlindspotError(f"There is no recipe {path}; the project's own are in data/recipes.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BlindspotError(f"The recipe {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise BlindspotError(f"{path.name}{where} is not valid YAML: {problem}.") from None
    except BlindspotError:
        raise
    except Exception as error:  # of PyYAML: endless nesting, a 31st of February, a number of 5,000 digits
        raise BlindspotError(f"{path.name} is not valid YAML: {_first_line(error)}.") from None
    if not isinstance(raw, dict):
        raise BlindspotError(f"{path.name} is not a recipe: it must be keys and values such as 'real: DIR'.")
    return raw


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _with_setting(raw: dict[str, Any], setting: str) -> dict[str, Any]:
    """`raw` with one `a.b=value` put in."""
    key, equals, text = setting.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise BlindspotError(f"--set {setting} is not of the form key=value, such as --set dictionary.concepts=512.")
    try:
        value = yaml.safe_load(text)
    except Exception:  # of PyYAML, as above
        raise BlindspotError(f"--set {setting[:100]}: the value is not valid YAML; put it in quotes.") from None
    _expect_plain(value, f"--set {key}")
    # A folder may be called 2024 or no.
    if any(_matches(keys, path) for path in (*FOLDER_KEYS, *MODEL_KEYS, *SHORTHANDS)) and not isinstance(
        value, dict | list | None
    ):
        value = text
    patch: Any = value
    for step in reversed(keys):
        patch = {step: patch}
    return _overlaid(raw, _resolved(patch, Path.cwd()), replace=len(keys))


def _overlaid(raw: Any, patch: Any, replace: int) -> Any:
    """`raw` with the value that lies `replace` keys deep in `patch` put in its place."""
    if replace == 0 or not isinstance(patch, Mapping):
        return patch
    merged = dict(raw) if isinstance(raw, Mapping) else {}
    for key, value in patch.items():
        merged[key] = _overlaid(merged.get(key), value, replace - 1)
    return merged


def _matches(keys: KeyPath, path: KeyPath) -> bool:
    return len(keys) == len(path) and all(step in ("*", key) for key, step in zip(keys, path, strict=True))


def _resolved(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    """A recipe without shorthands, and with absolute paths, taken from `base`; Hugging Face ids stay as they are."""

    def absolute(text: str) -> str:
        _refuse_address(text)
        return os.path.abspath(base / os.path.expanduser(text))

    def model(text: str) -> str:
        _refuse_address(text)
        path = Path(os.path.expanduser(text))
        inside = path.is_absolute() or text.startswith(".") or (base / path).exists() or text.count("/") > 1
        return absolute(text) if inside or "*" in text else text

    for path in SHORTHANDS:
        raw = _replaced(raw, path, lambda text: {"folder": text})
    for path in FOLDER_KEYS:
        raw = _replaced(raw, path, absolute)
    for path in MODEL_KEYS:
        raw = _replaced(raw, path, model)
    return raw


def _refuse_address(text: str) -> None:
    """Raise `BlindspotError` for an address in the place of a folder or an id."""
    if not (found := ADDRESS.match(text)):
        return
    rest = text[found.end() :].removeprefix("huggingface.co/").removeprefix("hf.co/")
    named = HUB_ID.fullmatch(rest.removeprefix("datasets/").strip("/"))
    hint = f"give the id {named[0]}" if named else "give a folder or a Hugging Face id such as facebook/dinov2-base"
    raise BlindspotError(f"The recipe names {text[:200]}, which is an address and no folder or id: {hint}.")


def _replaced(raw: Any, path: KeyPath, change: Callable[[str], Any]) -> Any:
    """`raw` with `change` applied to every string at `path`."""
    if isinstance(raw, list):
        return [_replaced(item, path, change) for item in raw]
    if not path:
        if isinstance(raw, Mapping) and isinstance(raw.get("id"), str):
            return {**raw, "id": change(raw["id"])}
        return change(raw) if isinstance(raw, str) else raw
    if not isinstance(raw, Mapping):
        return raw
    hit = raw.keys() if path[0] == "*" else {path[0]} & raw.keys()
    return {key: _replaced(value, path[1:], change) if key in hit else value for key, value in raw.items()}


def first_problem(error: ValidationError) -> str:
    """The first thing wrong with a recipe, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"] if step not in TAGS)
    given = first.get("input")
    match first["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            allowed = _allowed_keys(first["loc"])
            return f"unknown key '{where}'{_hint(str(first['loc'][-1]), allowed)}; allowed here: {', '.join(allowed)}."
        case "missing":
            remedy = {"real": "; say where the real images are, for example --set real=FOLDER"}
            remedy["models"] = "; say where the generated images are, for example --set models.NAME=FOLDER"
            return f"the key '{where}' is missing{remedy.get(where, '')}."
        case "union_tag_not_found":
            kinds = "folder or world, dataset, urls or pipeline" if where == "real" else "folder or pipeline"
            has = ", ".join(map(str, given)) if isinstance(given, Mapping) and given else "nothing"
            return f"'{where}' needs exactly one of the keys {kinds}, and has {has}."
        case "union_tag_invalid":
            kinds = (
                "a folder or a world, or a dataset, urls or a pipeline" if where == "real" else "a folder or a pipeline"
            )
            return f"'{where}' must be {kinds}."
        case "literal_error":
            allowed = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"'{where}' cannot be {given!r}{_hint(str(given), allowed)}; allowed: {', '.join(allowed)}."
        case "value_error":
            return f"'{where}' {first['ctx']['error']}."
    problem = first["msg"][0].lower() + first["msg"][1:]
    return f"'{where}' is {repr(given)[:200]}, but {problem}."


def _allowed_keys(loc: tuple[Any, ...]) -> list[str]:
    """The keys of the block in which the last step of `loc` was found."""
    block: Any = Recipe
    for step in loc[:-1]:
        if step in TAGS:
            block = TAGS[step]
        elif step in block.__pydantic_fields__:
            annotation = block.__pydantic_fields__[step].annotation
            kinds = (annotation, *get_args(annotation))
            block = next((kind for kind in kinds if hasattr(kind, "__pydantic_fields__")), block)
    return list(block.__pydantic_fields__)


def _hint(word: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
