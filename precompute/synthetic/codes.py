"""Token codes of scenes, image by image in one compiled loop, and what each model gets wrong on purpose.

A token draws `sparsity` concepts from the palette of its region or from the image's common ones, leading concepts more
often; a concept drawn twice is one code of twice the strength, so that expected energies are exactly the world's.

What is planted is the truth that an analysis of the atlas can be held to. Half of a model's planted concepts are
suppressed, missing from a share of the images. Half are exaggerated and appear uncalled for, in a block of patches that
have a free slot, so that no other concept gives way. Of each half, one half is planted in every model (universal) and
the other in this one alone (specific). Nothing else differs between real images and a model's, in expectation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numba
import numpy as np

from engine.atlas.schema import index_dtype
from engine.atlas.storage import CSR
from engine.errors import BlindspotError
from precompute.synthetic.scenes import Scenes, region_maps
from precompute.synthetic.world import LARGEST_CODE, PREFIX, World

CHUNK = 250
"""Images drawn at once, each chunk from a generator of its own."""
BLOCK = 2.5
"""Radius, in patches, of the block in which an exaggerated concept appears."""
CODES_A_BLOCK = 8
"""As many codes' worth of energy."""
SUPPRESSED, EXAGGERATED = (0.02, 0.25), (3.0, 8.0)
"""Range of the factor by which a planted concept's expected energy changes; uniform on a log scale."""
FREQUENT = (0.75, 0.97)
"""Quantiles of frequency between which concepts are planted: rarer ones say little in 10,000 images."""


class Planted(NamedTuple):
    """The planted concepts of one model."""

    concepts: np.ndarray
    """int32 `[planted]`, rising."""
    factor: np.ndarray
    """float64 `[planted]`, expected energy in the model over that in real images."""
    universal: np.ndarray
    """bool `[planted]`, whether it is planted in every model."""

    @property
    def suppressed(self) -> np.ndarray:
        """The concepts whose energy is lowered."""
        return self.concepts[self.factor < 1]

    @property
    def exaggerated(self) -> np.ndarray:
        """The concepts whose energy is raised."""
        return self.concepts[self.factor > 1]


def plant(world: World, count: int, rng: np.random.Generator) -> list[Planted]:
    """Choose `count` concepts and their factors for every model.

    Raises
    ------
    BlindspotError
        If the world has fewer concepts that can be planted.
    """
    low, high = np.quantile(world.fires, FREQUENT)
    fit = np.flatnonzero((world.fires >= low) & (world.fires <= high) & (world.community > 0))
    models = world.size.models
    universal = count // 2
    if count < 0 or universal + models * (count - universal) > len(fit):
        raise BlindspotError(
            f"--planted {count} does not fit: {world.size.concepts} concepts and {models} models allow 0 to "
            f"{2 * len(fit) // (models + 1) // 2 * 2}."
        )
    chosen = rng.permutation(fit)
    shared, own = chosen[:universal], chosen[universal:]
    shared_factor = _factors(universal, rng)
    found = []
    for model in range(models):
        specific = own[model * (count - universal) : (model + 1) * (count - universal)]
        concepts = np.concatenate([shared, specific])
        factor = np.concatenate([shared_factor, _factors(len(specific), rng)])
        order = np.argsort(concepts)
        found.append(Planted(concepts[order].astype(np.int32), factor[order], np.arange(count)[order] < universal))
    return found


def as_document(planted: Mapping[str, Planted], seed: int) -> dict[str, Any]:
    """The planted concepts of all models as JSON."""
    models = {
        name: [
            {"concept": int(concept), "factor": round(float(factor), 6), "universal": bool(universal)}
            for concept, factor, universal in zip(*one, strict=True)
        ]
        for name, one in planted.items()
    }
    return {"seed": seed, "models": models}


def _factors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Every other one below and above 1."""
    low, high = (
        np.exp(rng.uniform(float(np.log(least)), float(np.log(most)), count))
        for least, most in (SUPPRESSED, EXAGGERATED)
    )
    return np.where(np.arange(count) % 2 == 0, low, high)


def draw_codes(world: World, scenes: Scenes, planted: Planted | None, seed: tuple[int, ...]) -> Iterator[CSR]:
    """The codes of a source, chunk by chunk; values have float16 precision.

    Parameters
    ----------
    planted
        What the model gets wrong; None for the real source.
    seed
        Of the source.
    """
    size = world.size
    planted = planted or Planted(np.zeros(0, np.int32), np.zeros(0), np.zeros(0, bool))
    role = np.full(size.concepts, -1, np.int32)
    role[planted.concepts] = np.arange(len(planted.concepts))
    blocks = np.where(planted.factor > 1, (planted.factor - 1) * world.fires[planted.concepts] / CODES_A_BLOCK, 0)
    common = _common_shares(world)
    for number, start in enumerate(range(0, len(scenes), CHUNK)):
        part = slice(start, start + CHUNK)
        indptr, concepts, values = _draw(
            np.random.default_rng([*seed, number]),
            region_maps(scenes.centres[part], size.side),
            scenes.palettes[part],
            scenes.common[part],
            common,
            size.sparsity,
            world.strength,
            planted.concepts,
            planted.factor,
            blocks,
            role,
        )
        rounded = np.clip(values, np.float16(6e-8), LARGEST_CODE).astype(np.float16).astype(np.float32)
        yield CSR(indptr, concepts.astype(index_dtype(size.concepts)), rounded, size.concepts)


def _common_shares(world: World) -> np.ndarray:
    """`[tokens]`, how often a code of each token is of a common concept: registers hold nothing else if possible."""
    tokens = world.size.tokens
    registers = np.zeros(tokens, bool)
    registers[1:PREFIX] = True
    wanted = world.common_share * tokens
    share = np.empty(tokens)
    share[registers] = min(1.0, wanted / registers.sum())
    share[~registers] = max(0.0, wanted - registers.sum()) / (tokens - registers.sum())
    return share


@numba.njit(cache=True)
def _draw(
    rng, regions, palettes, common, common_share, sparsity, strength, planted, factor, blocks, role
):  # pragma: no cover - compiled
    """Row pointers, concepts and values of some images' codes.

    regions [images, patches] index palettes; common_share is [tokens]; planted concepts have a factor, and a number of
    blocks expected per image (0 if suppressed); role [concepts] is a concept's position among the planted, or -1.
    """
    images, patches = regions.shape
    tokens = len(common_share)
    prefix = tokens - patches
    side = int(np.sqrt(patches) + 0.5)
    most = palettes.shape[2]
    counts = np.zeros(tokens, np.int64)
    row_concepts = np.zeros((tokens, sparsity), np.int32)
    row_values = np.zeros((tokens, sparsity))
    shown = np.ones(len(planted), np.bool_)
    indptr = np.zeros(images * tokens + 1, np.int64)
    out_concepts = np.empty(images * tokens * sparsity, np.int32)
    out_values = np.empty(images * tokens * sparsity, np.float32)
    filled = 0
    for image in range(images):
        for number in range(len(planted)):
            shown[number] = factor[number] > 1 or rng.random() < factor[number]
        for token in range(tokens):
            counts[token] = 0
            for _ in range(sparsity):
                if rng.random() < common_share[token]:
                    concept = common[image, int(rng.random() * common.shape[1])]
                else:
                    region = (
                        regions[image, token - prefix]
                        if token >= prefix
                        else int(regions[image, int(rng.random() * patches)])
                    )
                    concept = palettes[image, region, int(most * rng.random() ** 2)]
                value = -0.5 * strength[concept] * np.log((1 - rng.random()) * (1 - rng.random()))
                if role[concept] < 0 or shown[role[concept]]:
                    counts[token] = _put(row_concepts[token], row_values[token], counts[token], concept, value)
        for number in range(len(planted)):
            wanted = blocks[number]
            while wanted > 0:
                if rng.random() < wanted:
                    _exaggerate(
                        rng, planted[number], strength[planted[number]], side, prefix, counts, row_concepts, row_values
                    )
                wanted -= 1
        for token in range(tokens):
            for slot in range(counts[token]):
                out_concepts[filled] = row_concepts[token, slot]
                out_values[filled] = row_values[token, slot]
                filled += 1
            indptr[image * tokens + token + 1] = filled
    return indptr, out_concepts[:filled].copy(), out_values[:filled].copy()


@numba.njit(cache=True)
def _put(concepts, values, count, concept, value):  # pragma: no cover - compiled
    """Add a code to a token's rising list; returns how many it has then."""
    place = count
    while place > 0 and concepts[place - 1] >= concept:
        place -= 1
    if place < count and concepts[place] == concept:
        values[place] += value
        return count
    for slot in range(count, place, -1):
        concepts[slot] = concepts[slot - 1]
        values[slot] = values[slot - 1]
    concepts[place] = concept
    values[place] = value
    return count + 1


@numba.njit(cache=True)
def _exaggerate(rng, concept, strength, side, prefix, counts, row_concepts, row_values):  # pragma: no cover - compiled
    """Add CODES_A_BLOCK codes' energy to the patches around a random one that have a free slot, or to the next ones."""
    room = row_concepts.shape[1]
    row, column = side * rng.random(), side * rng.random()
    radius = BLOCK
    total = 0
    while total == 0 and radius < 4 * side:
        for patch in range(side * side):
            away = (patch // side + 0.5 - row) ** 2 + (patch % side + 0.5 - column) ** 2
            if away < radius * radius and counts[prefix + patch] < room:
                total += 1
        if total == 0:
            radius *= 2
    for patch in range(side * side):
        away = (patch // side + 0.5 - row) ** 2 + (patch % side + 0.5 - column) ** 2
        token = prefix + patch
        if away < radius * radius and counts[token] < room:
            value = CODES_A_BLOCK / total * strength * (0.5 + rng.random())
            counts[token] = _put(row_concepts[token], row_values[token], counts[token], concept, value)
