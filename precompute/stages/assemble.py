"""All that the other stages found, written as one atlas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.atlas.schema import (
    COMPOSITION,
    REAL,
    REPORT,
    REPORT_TABLE,
    AtlasInfo,
    Source,
    thumb_file,
)
from engine.atlas.storage import CSR
from engine.atlas.tables import delta_table, divergence_table, energies_table, exemplars_table, neighbours_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.delta import DeltaSettings
from engine.blindspots.significance import Moments, measure_gap
from precompute.stages.composition import read_changes, read_curves
from precompute.stages.divergence import read_pairs
from precompute.stages.energies import read_statistics
from precompute.stages.index import read_neighbours
from precompute.stages.layout import read_map
from precompute.stages.manifest import Picture
from precompute.stages.metrics import read_metrics
from precompute.stages.report import read_report
from precompute.stages.thumbs import thumb_path
from precompute.stages.words import read_words


@dataclass(frozen=True)
class SourceResult:
    """What the stages found out about one source."""

    name: str
    label: str
    description: str
    pictures: Sequence[Picture]
    skipped: int
    pairing: str
    partner: np.ndarray
    """Per image the position of its real one, or -1: int `[images]`; the identity for the real source."""
    energies: Path
    """Folder of its energies stage."""
    thumbs: Path
    """Folder of its thumbs stage."""
    embeddings: np.ndarray
    """float32 `[images, dim]`"""
    divergence: Path
    """Folder of its divergence stage; the real source has none."""
    composition: Path
    """Folder of its composition stage."""


@dataclass(frozen=True)
class Findings:
    """What the stages found out about the concepts, and what the header says."""

    name: str
    description: str
    encoder: Mapping[str, Any]
    dictionary: Mapping[str, Any]
    dictionary_folder: Path
    atoms: np.ndarray
    """float32 `[concepts, dim]`"""
    layout: Path
    index: Path
    words: Path
    metrics: Sequence[Path]
    """Folders of the metrics stages."""
    report: Path
    delta: DeltaSettings
    prior: Mapping[str, Any] | None
    labels: Sequence[tuple[int, str, str]] | None
    """Ground truth of the real images: position, attribute, value."""
    fingerprints: Mapping[str, str]


def assemble(found: Findings, sources: Sequence[SourceResult], out: Path) -> AtlasInfo:
    """Write the atlas, replacing the one at `out`.

    Args:
        found: about the concepts.
        sources: the real source first.
        out: where the atlas goes.
    """
    concepts = len(found.atoms)
    starts = np.cumsum([0, *(len(source.pictures) for source in sources)])
    pairs = pair_numbers(sources)
    statistics = [read_statistics(source.energies) for source in sources]
    live = np.any([one["fires"] > 0 for one in statistics], axis=0)
    with AtlasWriter(out) as writer:
        writer.write_table("concepts", _concepts(found, live))
        writer.write_table("energies", pd.concat([_energies(*pair) for pair in zip(sources, statistics, strict=True)]))
        writer.write_table("delta", _delta(sources, statistics, concepts, live, found.delta))
        writer.write_table("images", _images(sources, pairs))
        writer.write_table("exemplars", _exemplars(sources, statistics, starts))
        writer.write_table("neighbours", neighbours_table(read_neighbours(found.index)))
        writer.write_table("divergence", _divergence(sources, pairs, starts))
        writer.write_table("changes", pd.concat([read_changes(source.composition) for source in sources[1:]]))
        writer.write_table("metrics", pd.DataFrame([row for folder in found.metrics for row in read_metrics(folder)]))
        curves = [read_curves(source.composition) for source in sources]
        writer.write_arrays(COMPOSITION, {name: array for one in curves for name, array in one.items()})
        if found.labels is not None:
            labels = pd.DataFrame(list(found.labels), columns=["image", "attribute", "value"])
            writer.write_table("labels", labels.astype({"attribute": str, "value": str}))
        for source, start in zip(sources, starts, strict=False):
            _write_source(writer, source, int(start), concepts)
        writer.write_index("images.faiss", np.concatenate([source.embeddings for source in sources]))
        writer.write_index("atoms.faiss", found.atoms)
        for path in sorted(found.dictionary_folder.iterdir()):
            writer.add_file(f"dictionary/{path.name}", path)
        summary, table = read_report(found.report)
        writer.write_table(REPORT_TABLE, table)
        writer.add_file(REPORT, json.dumps(summary, indent=1, sort_keys=True).encode())
        return writer.finish(_info(found, sources, pairs))


def pair_numbers(sources: Sequence[SourceResult]) -> list[np.ndarray]:
    """Per source the pair of each image, or -1: a real image that any model is paired with, and its counterparts."""
    real = np.full(len(sources[0].pictures), -1)
    partners = np.concatenate([np.zeros(0, np.int64), *(source.partner for source in sources[1:])])
    used = np.unique(partners[partners >= 0])
    real[used] = np.arange(len(used))
    return [real, *(np.where(source.partner >= 0, real[source.partner], -1) for source in sources[1:])]


def _concepts(found: Findings, live: np.ndarray) -> pd.DataFrame:
    layout, words = read_map(found.layout), read_words(found.words)
    return pd.DataFrame(
        {
            "concept": np.arange(len(live)),
            "x": layout.xy[:, 0],
            "y": layout.xy[:, 1],
            "cluster": np.where(live, layout.cluster, -1),
            "label": [one.label for one in words],
            "label_origin": [one.origin for one in words],
            "words": [list(one.words) for one in words],
            "dead": ~live,
        }
    )


def _energies(source: SourceResult, found: Mapping[str, np.ndarray]) -> pd.DataFrame:
    return energies_table(source.name, _moments(found), found["max"], found["fires"], found["images_active"])


def _moments(found: Mapping[str, np.ndarray]) -> Moments:
    return Moments(int(found["images"]), found["sum"], found["sum_sq"])


def _delta(
    sources: Sequence[SourceResult],
    statistics: Sequence[Mapping[str, np.ndarray]],
    concepts: int,
    live: np.ndarray,
    defaults: DeltaSettings,
) -> pd.DataFrame:
    real = CSR.open(sources[0].energies / "energy", concepts).rows()
    frames = []
    for source, measured in zip(sources[1:], statistics[1:], strict=True):
        model = CSR.open(source.energies / "energy", concepts).rows()
        paired = np.flatnonzero(source.partner >= 0)
        gap = measure_gap(real, model, source.partner[paired], paired)
        active = statistics[0]["images_active"], measured["images_active"]
        frames.append(delta_table(source.name, Moments.of(real), Moments.of(model), gap, live, defaults, active))
    return pd.concat(frames)


def _images(sources: Sequence[SourceResult], pairs: Sequence[np.ndarray]) -> pd.DataFrame:
    rows = [
        (source.name, number, picture.caption, picture.file, picture.width, picture.height, picture.sha256)
        for source, numbers in zip(sources, pairs, strict=True)
        for picture, number in zip(source.pictures, numbers, strict=True)
    ]
    columns = ["source", "pair", "caption", "file", "width", "height", "sha256"]
    return pd.DataFrame(rows, columns=columns).rename_axis("image").reset_index()


def _exemplars(
    sources: Sequence[SourceResult], statistics: Sequence[Mapping[str, np.ndarray]], starts: np.ndarray
) -> pd.DataFrame:
    frames = []
    for source, found, start in zip(sources, statistics, starts, strict=False):
        images = np.where(found["exemplars"] >= 0, found["exemplars"] + start, -1)
        frames.append(exemplars_table(source.name, images, found["scores"]))
    return pd.concat(frames)


def _divergence(sources: Sequence[SourceResult], numbers: Sequence[np.ndarray], starts: np.ndarray) -> pd.DataFrame:
    frames = []
    for source, pairs, start in zip(sources[1:], numbers[1:], starts[1:], strict=False):
        found = read_pairs(source.divergence)
        own = found.rows, start + found.rows, source.partner[found.rows]
        measured = found.divergence, found.nearest, found.similarity, found.p
        frames.append(divergence_table(source.name, pairs[own[0]], *own[1:], *measured))
    return pd.concat(frames)


def _write_source(writer: AtlasWriter, source: SourceResult, start: int, concepts: int) -> None:
    """Codes, energies and thumbnails of one source, whose first image has the global id `start`."""
    for kind in ("codes", "energy"):
        stored = CSR.open(source.energies / kind, concepts)
        writer.write_csr(f"{kind}/{source.name}", stored.indptr, stored.indices, stored.values)
    for number in range(len(source.pictures)):
        writer.add_file(thumb_file(start + number), thumb_path(source.thumbs, number))


def _info(found: Findings, sources: Sequence[SourceResult], pairs: Sequence[np.ndarray]) -> AtlasInfo:
    listed = [
        Source(
            name=source.name,
            kind="real" if source.name == REAL else "model",
            label=source.label,
            images=len(source.pictures),
            paired=bool((numbers >= 0).any()),
            pairing=source.pairing,
            skipped=source.skipped,
            description=source.description,
        )
        for source, numbers in zip(sources, pairs, strict=True)
    ]
    return AtlasInfo(
        name=found.name,
        description=found.description,
        encoder=found.encoder,
        dictionary=found.dictionary,
        sources=tuple(listed),
        delta=found.delta,
        prior=found.prior,
        stages=found.fingerprints,
    )
