"""Addresses of the published images: a base that the person gives, and the relative path that a file names.

Nothing is fetched here; whether a browser ever opens an address is asked of the person who looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from engine.atlas import schema
from engine.atlas.schema import web_address
from engine.errors import BlindspotError
from precompute.saediff.enriched import Enriched

MODEL = "{model}"
"""Stands, in the base, for the model's name in the file's name: the authors keep one folder per model."""


def check_base(base: str) -> None:
    """Raise `BlindspotError` unless `base` is an http(s) address, with at most `{model}` in it."""
    if not web_address(base.replace(MODEL, "model")) or set(base.replace(MODEL, "")) & set("{}"):
        raise BlindspotError(
            f"{base!r} is no address that images can be linked from: give --images-url an http(s) address of the "
            "folder that holds sample_0, sample_1 ..., with {model} where the model's name belongs."
        )


def image_links(files: Sequence[Enriched], names: Sequence[str], base: str) -> pd.DataFrame:
    """Rows of `links.parquet`: the best real image, every model's best one, and the other image of each of these pairs.

    The authors keep a pair in one folder, `sample_123/original.jpg` and `sample_123/ai.jpg`; where a file names its
    images otherwise, it has no counterparts. The best real image is that of the first file that names one.

    Raises
    ------
    BlindspotError
        If `base` is no address, or a file names a path that leaves its folder.
    """
    check_base(base)
    rows: list[tuple[str, int, int, str, str]] = []
    real_known: set[int] = set()
    for rank, (file, name) in enumerate(zip(files, names, strict=True), start=1):
        start = base.replace(MODEL, file.key).rstrip("/")
        real, model = _addresses(start, file.top_real, file), _addresses(start, file.top_model, file)
        own_name, real_name = _file_name(model), _file_name(real)
        rows += [
            (schema.REAL, concept, 0, schema.REAL, url) for concept, url in real.items() if concept not in real_known
        ]
        real_known |= real.keys()
        rows += [(name, concept, 0, name, url) for concept, url in model.items()]
        if own_name and real_name:
            rows += [(name, concept, 1, schema.REAL, _beside(url, own_name)) for concept, url in real.items()]
            rows += [(schema.REAL, concept, rank, name, _beside(url, real_name)) for concept, url in model.items()]
    return pd.DataFrame(rows, columns=["source", "concept", "rank", "of", "url"])


def _addresses(start: str, paths: Sequence[str | None], file: Enriched) -> dict[int, str]:
    """Per concept that names an image, its address."""
    found = {concept: f"{start}/{path}" for concept, path in enumerate(paths) if path is not None}
    for concept, url in found.items():
        if not schema.contained(paths[concept] or "") or not web_address(url):
            raise BlindspotError(
                f"{file.path} names the image {paths[concept]!r}, which is no plain relative path: get it again."
            )
    return found


def _file_name(addresses: Mapping[int, str]) -> str | None:
    """The one file name that all addresses end in, or None."""
    names = {url.rpartition("/")[2] for url in addresses.values()}
    return names.pop() if len(names) == 1 else None


def _beside(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"
