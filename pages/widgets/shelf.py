"""Which atlas is shown: the one that the app was started with, or one of a folder of atlases, chosen in the address."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine.atlas.schema import HEADER
from engine.files import DATA

ENVIRONMENT = "BLINDSPOT_ATLAS"
DEFAULT = DATA / "demo" / "atlas"
PARAMETER = "atlas"
"""Of the address: the folder's name of the atlas, where there are several."""
CHOSEN = "shelf_chosen"
"""Session key: the name of the atlas that this tab shows."""
FRESH = 5
"""Seconds for which a folder's list of atlases is believed."""
_asked: ContextVar[Path | None] = ContextVar("asked", default=None)


def started_with() -> Path:
    """Return what to show: ``streamlit run app.py -- ATLAS``, else BLINDSPOT_ATLAS, else the demo."""
    is_app = Path(sys.argv[0]).name == "app.py"
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")] if is_app else []
    return Path(named[0] if named else os.environ.get(ENVIRONMENT) or DEFAULT).expanduser().resolve()


def atlases() -> dict[str, Path]:
    """Return the atlases of the folder that the app was started with, by name; none if that is an atlas itself."""
    return _below(started_with(), int(time.monotonic() / FRESH))


@lru_cache(maxsize=4)
def _below(folder: Path, _moment: int) -> dict[str, Path]:
    if (folder / HEADER).exists() or not folder.is_dir():
        return {}
    found = [path for path in sorted(folder.iterdir()) if not path.is_symlink() and (path / HEADER).is_file()]
    return {path.name: path for path in found}


def atlas_path() -> Path:
    """Return the atlas of this request or tab."""
    known = atlases()
    return _asked.get() or (known[chosen()] if known else started_with())


def chosen() -> str:
    """Return the name of this tab's atlas: the address's, else the last one it showed, else the first."""
    known = atlases()
    if get_script_run_ctx() is None:
        return next(iter(known))
    name = st.query_params.get(PARAMETER, "")
    if name not in known:
        name = st.session_state.get(CHOSEN, "")
    return name if name in known else next(iter(known))


def unknown() -> str | None:
    """Return the atlas that the address asks for and that is not there."""
    name, known = st.query_params.get(PARAMETER), atlases()
    return name if name is not None and known and name not in known else None


def parameters() -> dict[str, str]:
    """Return what an address needs to lead to this tab's atlas."""
    return {PARAMETER: chosen()} if atlases() else {}


def entered() -> bool:
    """Note the atlas that this tab shows now; return whether it showed another one before."""
    if not atlases():
        return False
    before, now = st.session_state.get(CHOSEN), chosen()
    st.session_state[CHOSEN] = now
    return before not in (None, now)


@contextmanager
def asked(path: Path) -> Iterator[None]:
    """Show this atlas in the block, whatever the address says; for routes beside the pages."""
    token = _asked.set(path)
    try:
        yield
    finally:
        _asked.reset(token)
