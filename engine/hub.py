"""Where a model lies: in a local folder or in a repository on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.errors import BlindspotError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def find_model(
    source: str | Path, missing: str, *, base: str | Path | None = None, needs_owner: bool = False
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

    Raises
    ------
    BlindspotError
        With the sentence `missing`.
    """
    folder = Path(source).expanduser()
    if base is not None:
        folder = Path(os.path.abspath(base / folder))
    if folder.is_dir() and folder != base:
        return folder
    if isinstance(source, Path) or not HUB_ID.fullmatch(source) or (needs_owner and "/" not in source):
        raise BlindspotError(missing)
    return source
