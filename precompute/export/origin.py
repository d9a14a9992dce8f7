"""Where an exported file comes from, in a few lines that every format can carry."""

from __future__ import annotations

import hashlib
import json
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.atlas import Atlas

PROJECT = Path(__file__).resolve().parents[2]


def origin_of(atlas: Atlas, what: str) -> dict[str, str]:
    """Project and version, the atlas, and the fingerprints of its recipe and of its content.

    The recipe's is the SHA-256 of the fingerprints of all stages, equal for atlases of one recipe and its inputs; the
    content's that of the checksums of all files.
    """
    project = _project()
    content = {rel: entry.sha256 for rel, entry in atlas.info.files.items()}
    return {
        "project": project["name"],
        "version": project["version"],
        "atlas": atlas.info.name,
        "what": what,
        "recipe fingerprint": _sha256(dict(atlas.info.stages)),
        "content fingerprint": _sha256(content),
    }


def _sha256(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _project() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
