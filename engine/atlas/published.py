"""What must hold in an atlas of statistics that others published: what they did not publish is null, not a guess.

`checks` asks these in place of what it asks of an atlas that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from engine.atlas.schema import AtlasInfo

SPREAD = ("sum_sq", "max", "fires", "images_active")
"""Columns of `energies` that need the images."""
CERTAINTY = ("se", "ci_low", "ci_high", "p", "q")
"""Columns of `delta` that need the spread."""


def energies(table: pa.Table) -> Iterator[str]:
    """Mean energies are null or not negative, the number of images is 0, everything else is null."""
    mean = table["sum"].drop_null().to_numpy()
    if not (np.isfinite(mean) & (mean >= 0)).all():
        yield "an energy is negative or not finite"
    if (table["images"].to_numpy() != 0).any():
        yield "published statistics have a number of images"
    yield from _null(table, SPREAD)


def delta(table: pa.Table) -> Iterator[str]:
    """Deltas are null or between 0 and 1; intervals, p and q are null."""
    values = table["delta"].drop_null().to_numpy()
    if not ((values >= 0) & (values <= 1)).all():
        yield "delta is not between 0 and 1 everywhere"
    yield from _null(table, CERTAINTY)


def links(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Links are web addresses of images of the atlas's sources and concepts."""
    known = {source.name for source in info.sources}
    named = {*table["source"].unique().to_pylist(), *table["of"].unique().to_pylist()}
    if unknown := sorted(named - known):
        yield f"{unknown[0]!r} is no source of this atlas"
    concept = table["concept"].to_numpy()
    if ((concept < 0) | (concept >= info.concepts)).any():
        yield "a link's concept does not exist"
    for url in table["url"].unique().to_pylist():
        if not web_address(url):
            yield f"{url!r} is no web address"
            return


def numbers(table: pa.Table, info: AtlasInfo) -> Iterator[str]:
    """Each concept has one row."""
    if not np.array_equal(table["concept"].to_numpy(), np.arange(info.concepts)):
        yield f"its concepts are not 0 to {info.concepts - 1} in order"


def web_address(url: str | None) -> bool:
    """Whether `url` is a plain http(s) address: with a host, without user, spaces, quotes, query or fragment."""
    if not url or not url.isprintable() or set(url) & set(" \"'<>\\`?#"):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _null(table: pa.Table, columns: tuple[str, ...]) -> Iterator[str]:
    for column in columns:
        if table[column].null_count != table.num_rows:
            yield f"{column} is filled in, though nobody published it"
