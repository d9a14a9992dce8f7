"""The tables of an atlas of published statistics; what was not published is null in them."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import pandas as pd

from engine.atlas import Source
from engine.blindspots.delta import DeltaSettings, delta_of_gap
from precompute.saediff.enriched import Connections, Enriched
from precompute.saediff.sides import Sides
from precompute.stages.neighbours import nearest


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
