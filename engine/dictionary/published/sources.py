"""Where a published dictionary lies: a local file, a local folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.dictionary.published.remote import refuse_unread
from engine.errors import BlindspotError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:/[\w./-]+)?(?:@[\w./-]+)?")
KNOWN = ("sae_weights.safetensors", "sae.safetensors", "ae.pt", "sae.pt")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
CONFIGS = ("cfg.json", "config.json")
IGNORED = ("sparsity.safetensors", "activation_whitening.safetensors", "activations_store_state.safetensors")


@dataclass(frozen=True)
class Source:
    """The files of one published dictionary."""

    weights: Path
    config: Path | None
    """The JSON file beside the weights, if there is one."""


def find_source(src: str) -> Source:
    """Resolve a path or a hub id (`owner/name`, `owner/name/folder/or/file`, each with `@revision` if wanted).

    Raises
    ------
    BlindspotError
        When there is nothing at `src`, no weights in it, or more than one candidate.
    """
    path = Path(src).expanduser()
    if not path.exists():
        if not HUB_ID.fullmatch(src) or src.startswith((".", "/")) or ".." in src.split("/"):
            raise BlindspotError(f"There is no file or folder {src}, nor is it an owner/name on the Hugging Face hub.")
        path = _download(src)
    if path.is_file():
        return Source(path, _config_in(path.parent))
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    return Source(path / pick_weights(names, str(path)), _config_in(path))


def pick_weights(names: list[str], where: str) -> str:
    """The weights among file names: safetensors before PyTorch files, and a library's own names before others.

    Raises
    ------
    BlindspotError
        When none, or several equally good, are there.
    """
    for suffix in SUFFIXES:
        found = [name for name in names if name.endswith(suffix) and name not in IGNORED]
        own = [name for name in KNOWN if name in found]
        if len(found) > 1 and not own:
            raise BlindspotError(f"{where} holds several dictionaries ({', '.join(found[:6])}); give the path of one.")
        if found:
            return (own or found)[0]
    raise BlindspotError(
        f"{where} holds no weights ({', '.join(SUFFIXES)}); give the folder or file of one dictionary."
    )


def _config_in(folder: Path) -> Path | None:
    return next((folder / name for name in CONFIGS if (folder / name).is_file()), None)


def _download(src: str) -> Path:
    """Fetch one dictionary of a hub repository, its weights and JSON files only; code is never fetched."""
    from huggingface_hub import HfApi, snapshot_download

    name, _, revision = src.partition("@")
    owner, repository, *rest = name.strip("/").split("/", 2)
    repo_id, inner, revision = f"{owner}/{repository}", "".join(rest), revision or None
    # Which exceptions mean "no connection" depends on the hub's HTTP library, so whatever these calls raise is told.
    try:
        files = HfApi().list_repo_files(repo_id, revision=revision)
    except Exception as error:
        snapshot = _cached(repo_id, revision or "main")
        if snapshot is None or not (snapshot / inner).exists():
            raise _unreachable(src, error) from error
        return snapshot / inner
    wanted = files_of_one(files, inner, src)
    try:
        refuse_unread(repo_id, wanted[0], revision)
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted)) / wanted[0]
    except BlindspotError:
        raise
    except Exception as error:
        raise _unreachable(src, error) from error


def files_of_one(files: list[str], inner: str, where: str) -> list[str]:
    """Of a repository's files those of one dictionary, the weights first.

    Parameters
    ----------
    files
        Paths within the repository.
    inner
        A folder or file among them; empty for the root.
    where
        What the user asked for, for messages.

    Raises
    ------
    BlindspotError
        See `pick_weights`; also when `inner` is not in the repository.
    """
    folder = inner.rpartition("/")[0] if inner in files else inner
    prefix = f"{folder}/" if folder else ""
    here = sorted(file.removeprefix(prefix) for file in files if file.startswith(prefix))
    if not here:
        raise BlindspotError(f"{where}: the repository has no folder or file {inner}; check the name.")
    here = [file for file in here if "/" not in file]
    weights = inner.removeprefix(prefix) if inner in files else pick_weights(here, where)
    return [prefix + file for file in (weights, *CONFIGS) if file in here]


def _cached(repo_id: str, revision: str) -> Path | None:
    """The folder of an earlier download, whole or in part, by branch, tag or commit."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return None
    for repository in repositories:
        if repository.repo_type == "model" and repository.repo_id == repo_id:
            for found in repository.revisions:
                if revision == found.commit_hash or revision in found.refs:
                    return found.snapshot_path
    return None


def _unreachable(src: str, error: Exception) -> BlindspotError:
    return BlindspotError(
        f"{src} is not on this machine and could not be fetched from the Hugging Face hub ({type(error).__name__}); "
        "check the name and the connection, or give a local folder."
    )
