"""Every analysis as an exhibit: a figure with the table behind it, made from a view and named.

So pages show it, the browser fetches it once by its URL, and a person takes it along as CSV or HTML.

`named` is the way in; `blindspots`, `shared`, `images`, `composition`, `theory` and `samplers` make them, `files`
writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from pages.exhibits import blindspots, composition, images, samplers, shared, theory
from pages.exhibits.base import Exhibit, Maker
from pages.widgets import data, state

MAKERS: dict[str, Maker] = {
    name: maker
    for part in (blindspots, shared, images, composition, theory, samplers)
    for name, maker in part.MAKERS.items()
}


@dataclass(frozen=True)
class Named:
    """An exhibit with its address."""

    name: str
    query: str
    """The parameters of the view that it depends on, as an URL carries them."""
    exhibit: Exhibit

    def path(self, suffix: str) -> str:
        """Return the path of its figure (``json``) or of a file to take along (``csv``, ``html``)."""
        return f"exhibit/{self.name}.{suffix}" + (f"?{self.query}" if self.query else "")


def named(name: str, view: state.View) -> Named:
    """Return the exhibit `name` of a view; only the parameters that it depends on count.

    Raises
    ------
    LookupError
        If there is no such exhibit.
    BlindspotError
        If the atlas has not what it needs.
    """
    known = data.known(data.atlas_path())
    params = state.write(view, known, MAKERS[name].keys)
    return Named(name, urlencode(params), _made(data.atlas_path(), name, state.read(params, known)))


@lru_cache(maxsize=24)
def _made(path: Path, name: str, view: state.View) -> Exhibit:
    return MAKERS[name].make(view)
