"""Where a model lies: in a local folder or in a repository on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import BlindspotError
from engine.files import user_data

ALLOW = "BLINDSPOT_ALLOW_MODELS"
"""Variable of the environment that agrees to any model that an atlas names."""
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
WEIGHTS = re.compile(
    r"(?:diffusion_)?(?:pytorch_)?model(?:\.(?P<first>[\w-]+?))?(?:-\d+-of-\d+)?(?:\.(?P<second>[\w-]+))?"
    r"\.(?P<kind>safetensors|bin)(?:\.index(?:\.(?P<third>[\w-]+))?\.json)?"
)
"""Files of weights as diffusers and transformers name them, with their variant in one of three places."""


def find_model(
    source: str | Path,
    missing: str,
    *,
    base: str | Path | None = None,
    needs_owner: bool = False,
    files: bool = False,
) -> str | Path:
    """Return the folder that `source` names, or `source` itself if it can be a Hugging Face id.

    Nothing is downloaded; a revision is the loader's argument and no part of the id.

    Parameters
    ----------
    source
        A folder, absolute or relative, or an id such as `facebook/dinov2-base`.
    missing
        The error's sentence when it is neither.
    base
        The folder that relative folders are relative to, which is itself no model; else the working directory.
    needs_owner
        Whether an id without its owner, such as `gpt2`, is refused.
    files
        Whether it may be a single file of weights, safetensors.

    Raises
    ------
    BlindspotError
        With the sentence `missing`, or another one if it is a file that will not do.
    """
    folder = Path(source).expanduser()
    if base is not None:
        folder = Path(os.path.abspath(base / folder))
    if folder.is_dir() and folder != base:
        return folder
    if folder.is_file() and files and folder.suffix == ".safetensors":
        return folder
    if folder.is_file():
        raise BlindspotError(
            f"{source} is a single file, but a model is a folder with its config: load the file with diffusers' "
            "`StableDiffusionPipeline.from_single_file` or its like, and give the folder that `save_pretrained` writes."
        )
    if isinstance(source, Path) or not HUB_ID.fullmatch(source) or (needs_owner and "/" not in source):
        raise BlindspotError(missing)
    return source


def loading_options(found: str | Path, revision: str | None = None) -> dict[str, Any]:
    """Return what every `from_pretrained` of diffusers and transformers is told: run no code, take this variant."""
    return {"trust_remote_code": False, "variant": variant_of(found, revision)}


def variant_of(found: str | Path, revision: str | None = None) -> str | None:
    """Return the variant, such as "fp16", that a model's folder needs because some part of it has no plain weights.

    Of an id, what an earlier download left on this machine is looked at.
    """
    if isinstance(found, str) and not Path(found).is_dir():
        from huggingface_hub import snapshot_download

        try:
            found = snapshot_download(found, revision=revision, local_files_only=True)
        except (OSError, ValueError):
            return None
    needed: list[set[str]] = []
    for part in (Path(found), *sorted(Path(found).iterdir())):
        names = [name for name in os.listdir(part) if (part / name).is_file()] if part.is_dir() else []
        weights = [match for match in map(WEIGHTS.fullmatch, names) if match]
        best = "safetensors" if any(match["kind"] == "safetensors" for match in weights) else "bin"
        variants = {match["first"] or match["second"] or match["third"] for match in weights if match["kind"] == best}
        if variants and None not in variants:
            needed.append(variants)
    common = set.intersection(*needed) if needed else set()
    return min(common, key=lambda name: ("ema" in name, name != "fp16", name), default=None)


def remember_model(folder: str | Path) -> None:
    """Note in the user's own data that a run of this user loads the model in `folder`, which agrees to it from then on.

    A note cannot come with an atlas from elsewhere, as a file beside the atlas could. A folder that cannot be written
    to is no error: the user is asked later.
    """
    with suppress(OSError):
        note = _note(folder)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.touch()


def _note(folder: str | Path) -> Path:
    return user_data() / "models" / hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()


def agreed_model(found: str | Path, named: str, atlas: Path, revision: str | None = None) -> str | Path:
    """Return where to load a model from that an atlas's header names, which somebody else may have written.

    A folder beside the atlas, or one that a run of this user has loaded, is used. An id stands for what an earlier
    download left on this machine; nothing is fetched.

    Parameters
    ----------
    found
        What `find_model` says of it.
    named
        The header's words.
    atlas
        The atlas's folder.
    revision
        Of the id.

    Raises
    ------
    BlindspotError
        If a folder lies elsewhere, or nothing was downloaded, unless the environment has `BLINDSPOT_ALLOW_MODELS`.
    """
    if os.environ.get(ALLOW):
        return found
    if isinstance(found, Path):
        beside = Path(os.path.abspath(found)).is_relative_to(Path(os.path.abspath(atlas)).parent)
        if beside or _note(found).is_file():
            return found
        raise BlindspotError(
            f"The atlas {atlas} names the model {named!r}, which does not lie beside it: if you trust the atlas, set "
            f"{ALLOW}=1 and try again."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(found, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise BlindspotError(
            f"The atlas {atlas} names the model {named!r} of the Hugging Face hub, which is not on this machine: to "
            f"download it, use --allow-download or set {ALLOW}=1."
        ) from error
