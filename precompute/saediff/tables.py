"""The tables of an atlas of published statistics; what was not published is null in them.

Images are links: a base address that the person gives, and the relative path that a file names. Nothing is fetched
here; whether a browser ever opens an address is asked of the person who looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import faiss
import numpy as np
import pandas as pd

from engine.atlas import Source, schema
from engine.atlas.schema import web_address
from engine.blindspots.delta import DeltaSettings, delta_of_gap
from engine.errors import BlindspotError
from precompute.saediff.enriched import Connections, Enriched
from precompute.saediff.sides import Sides
from precompute.stages.neighbours import nearest

MODEL = "{model}"
"""Stands, in the base address of the images, for the model's name in the file's name: the authors keep one folder per
model."""


def concepts_table(xy: np.ndarray, live: np.ndarray) -> pd.DataFrame:
    """`concepts.parquet`: the published map; no words, no clusters, and dead all that is not live [K]."""
    return pd.DataFrame(
        {
            "concept": np.arange(len(live)),
            "x": xy[:, 0],
            "y": xy[:, 1],
            "cluster": -1,
            "label": None,
            "label_origin": None,
            "words": [[] for _ in live],
            "dead": ~live,
        }
    )


def energies_table(sources: Sequence[Source], sides: Sides) -> pd.DataFrame:
    """`energies.parquet`: mean energies in `sum`, of 0 images."""
    unknown = dict.fromkeys(("sum_sq", "max", "fires", "images_active"))
    frames = [
        pd.DataFrame({"source": source.name, "concept": np.arange(len(mean)), "images": 0, "sum": mean, **unknown})
        for source, mean in zip(sources, (sides.real, *sides.models), strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def delta_table(sources: Sequence[Source], files: Sequence[Enriched], sides: Sides) -> pd.DataFrame:
    """`delta.parquet`: the published gap and relative gap, delta at the paper's temperature, no certainty."""
    unknown = dict.fromkeys(("n", "se", "ci_low", "ci_high", "p", "q"))
    frames = []
    for source, file, model in zip(sources[1:], files, sides.models, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = file.gap / (model + sides.real) if file.relative is None else file.relative
        columns = {"gap": file.gap, "relative": relative, "delta": delta_of_gap(file.gap, DeltaSettings.temperature)}
        frames.append(pd.DataFrame({"model": source.name, "concept": np.arange(len(model)), **columns, **unknown}))
    return pd.concat(frames, ignore_index=True)


def published_table(files: Sequence[Enriched], sides: Sides) -> pd.DataFrame:
    """`published.parquet`: numbers of images that the files do not name."""
    energy = files[0].energy if sides.energy == "other" else None
    fires = next((file.fires for file in files if file.fires is not None), None)
    return pd.DataFrame({"concept": np.arange(len(files[0].gap)), "energy": energy, "fires": fires})


def cooccurrence_rows(connections: Connections | None, live: np.ndarray) -> pd.DataFrame:
    """Rows of `neighbours.parquet` of the kind `cooccurrence`: those of live concepts, strongest first, each once."""
    if connections is None:
        return pd.DataFrame({"concept": [], "kind": [], "rank": [], "other": [], "value": []})
    frame = pd.DataFrame({"concept": connections.rows, "other": connections.others, "value": connections.values})
    frame = frame[live[frame["concept"]] & live[frame["other"]]]
    frame = frame.sort_values(["concept", "value"], ascending=[True, False], kind="stable")
    frame = frame.drop_duplicates(["concept", "other"])
    return frame.assign(kind="cooccurrence", rank=frame.groupby("concept").cumcount())


def near_on_map_rows(xy: np.ndarray, live: np.ndarray) -> pd.DataFrame:
    """Rows of `neighbours.parquet` of the kind `map`: the live concepts nearest on the published map."""
    near = nearest(xy, np.flatnonzero(live), faiss.IndexFlatL2)
    concept, rank = np.nonzero(near.others >= 0)
    others, values = near.others[concept, rank], near.values[concept, rank]
    return pd.DataFrame({"concept": concept, "kind": "map", "rank": rank, "other": others, "value": values})


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
