"""A small invented world, measured and written as a complete atlas: what tests and load tests open.

Scenes hold one to three coloured shapes on a background; every concept stands for a shape, a colour or a background.
Codes, thumbnails and captions all come from the same scenes, so heat maps sit on the shapes, exemplars show what the
words say, and a model that hides a shape is really missing it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from engine.atlas import AtlasInfo, AtlasWriter, Source, tables
from engine.atlas.schema import REPORT, REPORT_TABLE
from engine.blindspots.cooccurrence import cooccurrence_neighbours
from engine.blindspots.energy import EnergyPass, SourceEnergies
from engine.blindspots.significance import measure_gap
from tests.synthetic_scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, draw, random_scene

GROUPS = (*SHAPES, *COLOURS, *BACKGROUNDS)
GRID, PREFIX, DIM = 8, 5, 32
TOKENS = PREFIX + GRID * GRID
_PARTS = ("edge", "inside", "shadow", "corner", "middle", "outline")
_CELLS = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij"), -1).reshape(-1, 2) / GRID + 0.5 / GRID

Planted = Mapping[str, Mapping[str, Sequence[int]]]


def group_of(concept: int) -> str:
    """The shape, colour or background that a synthetic concept stands for."""
    return GROUPS[concept % len(GROUPS)]


def default_planted(concepts: int, models: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Blindspots per model: even models lose a shape, odd models overdo a background, each another one."""
    planted = {}
    for number, model in enumerate(models):
        suppressed = [] if number % 2 else list(range((1 + number) % len(SHAPES), concepts, len(GROUPS)))
        first = len(SHAPES) + len(COLOURS) + (number + 3) % len(BACKGROUNDS)
        exaggerated = list(range(first, concepts, len(GROUPS))) if number % 2 else []
        planted[model] = {"suppressed": suppressed, "exaggerated": exaggerated}
    return planted


def build_synthetic_atlas(
    path: str | Path,
    concepts: int = 200,
    pairs: int = 60,
    models: Sequence[str] = ("alpha", "beta"),
    seed: int = 0,
    planted: Planted | None = None,
    unpaired: Sequence[str] = (),
) -> Path:
    """Write a complete, valid atlas and return its path.

    Parameters
    ----------
    concepts : dictionary size, at least 24; 32,000 is fine.
    pairs : images per source.
    models : names of the generated sources.
    planted : {model: {"suppressed": concepts, "exaggerated": concepts}}; default `default_planted`.
    unpaired : the models that draw scenes of their own.
    """
    planted = default_planted(concepts, models) if planted is None else planted
    world = World(concepts, planted, seed)
    rng = np.random.default_rng([seed, 1])
    originals = [random_scene(rng) for _ in range(pairs)]
    scenes = {"real": originals}
    for model in models:
        wanted = [random_scene(rng) for _ in range(pairs)] if model in unpaired else originals
        scenes[model] = [world.generated(model, scene, rng) for scene in wanted]
    with AtlasWriter(path) as writer:
        sources = tuple(_source(name, pairs, name in unpaired) for name in scenes)
        measured, energies, codes = {}, {}, {}
        for number, (name, drawn) in enumerate(scenes.items()):
            codes[name] = world.codes(name, drawn, np.random.default_rng([seed, 2, number]))
            measuring = EnergyPass(concepts, TOKENS, PREFIX, exemplars=12, first_image=number * pairs)
            energies[name] = measuring.add(codes[name].indptr, codes[name].indices, codes[name].data)
            measured[name] = measuring.finish()
            writer.write_csr(f"codes/{name}", codes[name].indptr, codes[name].indices, codes[name].data)
            writer.write_csr(f"energy/{name}", energies[name].indptr, energies[name].indices, energies[name].data)
            for offset, scene in enumerate(drawn):
                writer.write_thumb(number * pairs + offset, draw(scene))
        info = AtlasInfo("synthetic", _encoder(), _dictionary(concepts), sources, "Shapes on backgrounds, invented.")
        _write_measurements(writer, info, measured, energies, unpaired)
        _write_images(writer, scenes, originals, unpaired)
        world.write_concepts(writer, codes, measured)
        embeddings = sparse.vstack(list(energies.values())) @ world.atoms
        writer.write_index("images.faiss", embeddings)
        writer.write_index("atoms.faiss", world.atoms)
        _write_report(writer, world.atoms, codes["real"], seed)
        writer.finish(replace(info, stages={"synthetic": {"seed": seed, "pairs": pairs}}))
    return Path(path)


class World:
    """What the concepts are and how scenes excite them."""

    def __init__(self, concepts: int, planted: Planted, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.concepts, self.planted = concepts, planted
        self.group = np.arange(concepts) % len(GROUPS)
        self.scale = np.exp(rng.normal(0.0, 0.9, concepts))
        chosen = [ids for roles in planted.values() for ids in roles.values()]
        ids = np.array(sorted({concept for listed in chosen for concept in listed}), int)
        self.scale[ids] = np.maximum(self.scale[ids], 2.5)
        centres = rng.normal(size=(len(GROUPS), DIM))
        self.atoms = centres[self.group] + 0.5 * rng.normal(size=(concepts, DIM))
        angle = np.arange(len(GROUPS)) * math.pi * (3 - math.sqrt(5))
        islands = np.sqrt(np.arange(len(GROUPS)) + 0.5)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        self.places = 2 * islands[self.group] + rng.normal(0.0, 0.45, (concepts, 2))
        self.members = [np.flatnonzero(self.group == group) for group in range(len(GROUPS))]

    def generated(self, model: str, scene: Scene, rng: np.random.Generator) -> Scene:
        """What `model` makes of a scene: things move a little, hidden shapes vanish, a loved background takes over."""
        roles = self.planted.get(model, {})
        lost, loved = set(roles.get("suppressed", ())), set(roles.get("exaggerated", ()))
        things = tuple(
            replace(thing, row=thing.row + rng.normal(0, 0.03), column=thing.column + rng.normal(0, 0.03))
            for thing in scene.things
            if not lost.issuperset(self.members[thing.shape])
        )
        background = scene.background
        for place in range(len(BACKGROUNDS)):
            members = self.members[len(SHAPES) + len(COLOURS) + place]
            if loved.issuperset(members) and rng.random() < 0.5:
                background = place
        return replace(scene, background=background, things=things)

    def codes(self, source: str, scenes: Sequence[Scene], rng: np.random.Generator) -> sparse.csr_matrix:
        """[images * TOKENS, K] float32 token codes of the scenes."""
        rows, columns, weights = [], [], []
        for number, scene in enumerate(scenes):
            for tokens, concepts, weight in self._excited(scene):
                rows.append(np.repeat(number * TOKENS + tokens, len(concepts)))
                columns.append(np.tile(concepts, len(tokens)))
                weights.append(np.repeat(weight, len(concepts)))
        count = len(scenes) * TOKENS * (1 if self.concepts < 5000 else 3)
        rows.append(rng.integers(0, len(scenes) * TOKENS, count))
        columns.append(rng.integers(0, self.concepts, count))
        weights.append(np.full(count, 0.1))
        row, column, weight = (np.concatenate(part) for part in (rows, columns, weights))
        value = weight * self.scale[column] * np.exp(rng.normal(0.0, 0.25, len(column)))
        roles = self.planted.get(source, {})
        kept = ~np.isin(column, list(roles.get("suppressed", ()))) | (rng.random(len(column)) < 0.04)
        row, column, value = row[kept], column[kept], value[kept]
        loved = np.array(list(roles.get("exaggerated", ())), int)
        extra = len(scenes) * 4 * len(loved)
        row = np.concatenate([row, rng.integers(0, len(scenes) * TOKENS, extra)])
        column = np.concatenate([column, np.repeat(loved, len(scenes) * 4)])
        value = np.concatenate([value, 1.5 * self.scale[column[len(value) :]]]).astype(np.float32)
        shape = (len(scenes) * TOKENS, self.concepts)
        return sparse.coo_matrix((value, (row, column)), shape=shape).tocsr()

    def _excited(self, scene: Scene) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(tokens, concepts, weight per token) for each thing, the background and the class token."""
        free = np.ones(GRID * GRID, bool)
        for thing in scene.things:
            distance = np.hypot(*(_CELLS - (thing.row, thing.column)).T) / thing.radius
            inside = np.flatnonzero(distance < 1.2)
            free[inside] = False
            rng = np.random.default_rng(thing.seed)
            concepts = np.concatenate([self._pick(thing.shape, 3, rng), self._pick(10 + thing.colour, 2, rng)])
            yield PREFIX + inside, concepts, 4 * np.exp(-(distance[inside] ** 2))
            yield np.zeros(1, int), concepts, np.ones(1)
        open_tokens = np.flatnonzero(free)
        rng = np.random.default_rng(scene.seed)
        yield PREFIX + open_tokens, self._pick(18 + scene.background, 2, rng), np.full(len(open_tokens), 0.7)

    def _pick(self, group: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Concepts of a group, the early ones more often."""
        members = self.members[group]
        return np.unique(members[(len(members) * rng.random(count) ** 2).astype(int)])

    def write_concepts(
        self, writer: AtlasWriter, codes: Mapping[str, sparse.csr_matrix], measured: Mapping[str, SourceEnergies]
    ) -> None:
        """Write the concepts with their place, words and neighbours."""
        dead = np.sum([result.fires for result in measured.values()], axis=0) == 0
        words = [self._words(concept) if not dead[concept] else [] for concept in range(self.concepts)]
        labels = [f"{_PARTS[k // len(GROUPS) % 6]} of {group_of(k)}" if not dead[k] else None for k in range(len(dead))]
        columns = {"x": self.places[:, 0], "y": self.places[:, 1], "cluster": self.group, "label": labels}
        origin = [None if gone else "words" for gone in dead]
        frame = pd.DataFrame({"concept": np.arange(self.concepts), **columns, "label_origin": origin, "words": words})
        writer.write_table("concepts", frame.assign(dead=dead))
        together = cooccurrence_neighbours(sparse.vstack(list(codes.values()), format="csr"), 8)
        distance, near = cKDTree(self.places).query(self.places, k=9)
        unit = (self.atoms / np.linalg.norm(self.atoms, axis=1, keepdims=True)).astype(np.float32)
        _, alike = cKDTree(unit[:, :8]).query(unit[:, :8], k=9)
        cosine = np.einsum("kd,knd->kn", unit, unit[alike[:, 1:]])
        order = np.argsort(-cosine, axis=1, kind="stable")
        atom = np.take_along_axis(alike[:, 1:], order, 1), np.take_along_axis(cosine, order, 1)
        kinds = {"cooccurrence": together, "atom": atom, "map": (near[:, 1:], -distance[:, 1:])}
        writer.write_table("neighbours", tables.neighbours_table(kinds))

    def _words(self, concept: int) -> list[str]:
        step = concept // len(GROUPS)
        return list(dict.fromkeys([group_of(concept), GROUPS[(7 * step + 3) % 24], GROUPS[(5 * step + 11) % 24]]))


def _source(name: str, images: int, unpaired: bool) -> Source:
    if name == "real":
        return Source(name, "real", "Real scenes", images)
    pairing = "none" if unpaired else "generated"
    return Source(name, "model", f"Model {name}", images, paired=not unpaired, pairing=pairing)


def _encoder() -> dict:
    return {
        "id": "blindspot-atlas/synthetic",
        "revision": None,
        "layer": None,
        "image_size": 64,
        "patch": 8,
        "grid": [GRID, GRID],
        "prefix_tokens": PREFIX,
        "dim": DIM,
        "resize": "square",
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def _dictionary(concepts: int) -> dict:
    return {"kind": "synthetic", "concepts": concepts, "dim": DIM, "sparsity": 5, "r2": 0.8}


def _write_measurements(
    writer: AtlasWriter,
    info: AtlasInfo,
    measured: Mapping[str, SourceEnergies],
    energies: Mapping[str, sparse.csr_matrix],
    unpaired: Sequence[str],
) -> None:
    live = np.sum([result.fires for result in measured.values()], axis=0) > 0
    deltas, sums, exemplars = [], [], []
    for name, result in measured.items():
        statistics = (result.moments, result.max, result.fires, result.images_active)
        sums.append(tables.energies_table(name, *statistics))
        exemplars.append(tables.exemplars_table(name, result.exemplars, result.scores))
        if name != "real":
            rows = np.arange(0 if name in unpaired else energies[name].shape[0])
            gap = measure_gap(energies["real"], energies[name], rows, rows)
            real = measured["real"].moments
            active = measured["real"].images_active, result.images_active
            deltas.append(tables.delta_table(name, real, result.moments, gap, live, info.delta, active))
    writer.write_table("energies", pd.concat(sums))
    writer.write_table("exemplars", pd.concat(exemplars))
    writer.write_table("delta", pd.concat(deltas))


def _write_report(writer: AtlasWriter, atoms: np.ndarray, codes: sparse.csr_matrix, seed: int) -> None:
    """A report of the dictionary: use and coherence are those of the atlas, the rest is invented."""
    rng = np.random.default_rng([seed, 3])
    unit = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    coherence, nearest = np.zeros(len(unit), np.float32), np.zeros(len(unit), np.int32)
    for start in range(0, len(unit), 2048):
        alike = np.abs(unit[start : start + 2048] @ unit.T)
        rows = np.arange(len(alike))
        alike[rows, start + rows] = -1
        nearest[start + rows] = alike.argmax(axis=1)
        coherence[start + rows] = alike.max(axis=1)
    fires = np.bincount(codes.indices, minlength=len(atoms))
    table = pd.DataFrame({"concept": np.arange(len(atoms)), "fires": fires, "coherence": coherence})
    table["nearest"] = nearest
    table["hull_distance"] = 0.3 * rng.beta(2, 5, len(atoms))
    table["stability"] = rng.beta(6, 2, len(atoms))
    writer.write_table(REPORT_TABLE, table)
    counts = np.bincount(np.diff(codes.indptr))
    distance, mean = float(table["hull_distance"].mean()), float(table["stability"].mean())
    summary = {
        "tokens": codes.shape[0],
        "r2": 0.8,
        "fvu": 0.2,
        "l0": codes.nnz / codes.shape[0],
        "l0_counts": counts.tolist(),
        "dead_share": float((fires == 0).mean()),
        "coherence": float(coherence.mean()),
        "hull": {"distance": distance, "uncertainty": 0.01, "points": 64, "own_points": True},
        "stability": {"mean": mean, "pairs": [[1.0, mean], [mean, 1.0]]},
    }
    writer.add_file(REPORT, json.dumps(summary, indent=1).encode())


def _write_images(
    writer: AtlasWriter, scenes: Mapping[str, Sequence[Scene]], originals: Sequence[Scene], unpaired: Sequence[str]
) -> None:
    rows, labels = [], []
    for name, drawn in scenes.items():
        for number, scene in enumerate(drawn):
            image = len(rows)
            caption = scene.caption if name in unpaired else originals[number].caption
            digest = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()
            pair = -1 if name in unpaired else number
            rows.append((image, name, pair, caption, f"{name}/{number:05d}.png", 96, 96, digest))
            labels.append((image, "background", tuple(BACKGROUNDS)[scene.background]))
            for thing in scene.things:
                labels.append((image, "kind", SHAPES[thing.shape]))
                labels.append((image, "colour", tuple(COLOURS)[thing.colour]))
    columns = ["image", "source", "pair", "caption", "file", "width", "height", "sha256"]
    writer.write_table("images", pd.DataFrame(rows, columns=columns))
    writer.write_table("labels", pd.DataFrame(labels, columns=["image", "attribute", "value"]))
