"""Recipe files: reading the YAML, resolving its paths, applying `--set key=value`, saying what is wrong in a sentence.

Paths in a recipe are relative to the recipe's file, paths in `--set` to the working directory.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from engine.errors import BlindspotError
from precompute.recipe import TAGS, Recipe

FOLDER_KEYS = (("real", "folder"), ("models", "*", "folder"), ("dictionary", "load"))
"""Keys whose value is always a folder."""
MODEL_KEYS = (("models", "*", "pipeline"), ("encoder", "id"), ("prior", "id"))
"""Keys whose value is a folder or a Hugging Face id."""
SHORTHANDS = (("real",), ("models", "*"))
"""Keys where a plain string means `{folder: string}`."""


def load_recipe(path: Path, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `settings`, each `a.b=value` with a YAML value.

    Raises:
        BlindspotError: the file is missing or not YAML, a key is unknown, missing or has a bad value.
    """
    raw = rooted(expanded(_read(path)), path.resolve().parent)
    raw.setdefault("name", path.stem)
    for setting in settings:
        raw = _merged(raw, setting)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise BlindspotError(f"{path.name}: {_sentence(error)}") from None


def expanded(raw: dict[str, Any]) -> dict[str, Any]:
    """A recipe in which plain strings that stand for folders are `{folder: string}`."""
    return _changed(raw, SHORTHANDS, lambda value: {"folder": value} if isinstance(value, str) else value)


def rooted(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    """A recipe whose relative paths are absolute, taken from `base`; Hugging Face ids stay as they are."""
    raw = _changed(raw, FOLDER_KEYS, lambda value: _absolute(value, base) if isinstance(value, str) else value)
    return _changed(raw, MODEL_KEYS, lambda value: _located(value, base) if isinstance(value, str) else value)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BlindspotError(f"There is no recipe {path}; the project's own are in data/recipes.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BlindspotError(f"The recipe {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "bad syntax"
        raise BlindspotError(f"{path.name}{where} is not valid YAML: {problem}.") from None
    if not isinstance(raw, dict):
        raise BlindspotError(f"{path.name} is not a recipe: it must be keys and values such as 'real: DIR'.")
    return raw


def _merged(raw: dict[str, Any], setting: str) -> dict[str, Any]:
    """`raw` with one `a.b=value` put in."""
    key, equals, text = setting.partition("=")
    steps = tuple(key.strip().split("."))
    if not equals or not all(steps):
        raise BlindspotError(f"--set {setting} is not of the form key=value, such as --set dictionary.concepts=512.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise BlindspotError(f"--set {setting}: the value is not valid YAML; put it in quotes.") from None
    if any(_matches(steps, keys) for keys in (*FOLDER_KEYS, *MODEL_KEYS, *SHORTHANDS)) and not isinstance(
        value, dict | None
    ):
        value = text
    patch: Any = value
    for step in reversed(steps):
        patch = {step: patch}
    return _overlaid(raw, rooted(expanded(patch), Path.cwd()), replace=len(steps))


def _overlaid(raw: Any, patch: Any, replace: int) -> Any:
    """`raw` with the value that lies `replace` keys deep in `patch` put in its place."""
    if replace == 0 or not isinstance(patch, Mapping):
        return patch
    merged = dict(raw) if isinstance(raw, Mapping) else {}
    for key, value in patch.items():
        merged[key] = _overlaid(merged.get(key), value, replace - 1)
    return merged


def _matches(steps: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    return len(steps) == len(keys) and all(key in ("*", step) for step, key in zip(steps, keys, strict=True))


def _changed(raw: Any, patterns: Iterable[tuple[str, ...]], change: Any) -> Any:
    """`raw` with `change` applied to every value whose key path matches one of `patterns`."""
    for pattern in patterns:
        raw = _changed_at(raw, pattern, change)
    return raw


def _changed_at(raw: Any, pattern: tuple[str, ...], change: Any) -> Any:
    if not pattern:
        return change(raw)
    if not isinstance(raw, Mapping):
        return raw
    hit = raw.keys() if pattern[0] == "*" else {pattern[0]} & raw.keys()
    return {key: _changed_at(value, pattern[1:], change) if key in hit else value for key, value in raw.items()}


def _absolute(text: str, base: Path) -> str:
    return os.path.abspath(base / Path(text).expanduser())


def _located(text: str, base: Path) -> str:
    """A folder's absolute path, or the Hugging Face id as it is."""
    as_path = Path(text).expanduser()
    if as_path.is_absolute() or text.startswith(".") or (base / as_path).exists() or text.count("/") > 1:
        return _absolute(text, base)
    return text


def _sentence(error: ValidationError) -> str:
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
            kinds = "folder or world" if where == "real" else "folder or pipeline"
            has = ", ".join(map(str, given)) if isinstance(given, Mapping) and given else "nothing"
            return f"'{where}' needs exactly one of the keys {kinds}, and has {has}."
        case "union_tag_invalid":
            kinds = "a folder or a world" if where == "real" else "a folder or a pipeline"
            return f"'{where}' must be {kinds}."
        case "literal_error":
            allowed = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"'{where}' cannot be {given!r}{_hint(str(given), allowed)}; allowed: {', '.join(allowed)}."
        case "value_error":
            return f"'{where}' {first['ctx']['error']}."
    problem = first["msg"][0].lower() + first["msg"][1:]
    return f"'{where}' is {given!r}, but {problem}."


def _allowed_keys(loc: tuple[Any, ...]) -> list[str]:
    """The keys of the block in which the last step of `loc` was found."""
    part: Any = Recipe
    for step in loc[:-1]:
        if step in TAGS:
            part = TAGS[step]
        elif step in part.__pydantic_fields__:
            annotation = part.__pydantic_fields__[step].annotation
            kinds = (annotation, *get_args(annotation))
            part = next((kind for kind in kinds if hasattr(kind, "__pydantic_fields__")), part)
    return list(part.__pydantic_fields__)


def _hint(word: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
