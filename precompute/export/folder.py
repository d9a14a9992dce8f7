"""A folder that is whole or absent: filled as a temporary sibling, then moved into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import BlindspotError

MARK = "export.json"
"""The file by which an export is known; only a folder with it is ever replaced."""


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `out` if nothing goes wrong, else nothing stays of it.

    Raises:
        BlindspotError: `out` exists and is no earlier export.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out / MARK).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise BlindspotError(f"{out} exists and is not an export; choose another --out.")
    partial, old = (out.with_name(f".{out.name}.{role}-{os.getpid()}") for role in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
