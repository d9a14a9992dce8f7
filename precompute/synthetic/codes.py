"""Token codes of scenes, image by image in one compiled loop.

A token draws `sparsity` concepts from the palette of its region or from the image's common ones, leading concepts more
often; a concept drawn twice is one code of twice the strength, so that expected energies are exactly the world's. A
suppressed concept is missing from a share of the images. An exaggerated one appears uncalled for, in a block of patches
that have a free slot, so that no other concept gives way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from engine.atlas.schema import index_dtype
from engine.atlas.storage import CSR
from precompute.synthetic.planted import Planted
from precompute.synthetic.scenes import Scenes
from precompute.synthetic.world import LARGEST_CODE, PREFIX, World

CHUNK = 250
"""Images drawn at once, each chunk from a generator of its own."""
BLOCK = 2.5
"""Radius, in patches, of the block in which an exaggerated concept appears."""
CODES_A_BLOCK = 8
"""As many codes' worth of energy."""


def draw_codes(world: World, scenes: Scenes, planted: Planted | None, seed: tuple[int, ...]) -> Iterator[CSR]:
    """The codes of a source, chunk by chunk; values have float16 precision.

    Parameters
    ----------
    planted : what the model gets wrong; None for the real source.
    seed : of the source.
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


def region_maps(centres: np.ndarray, side: int) -> np.ndarray:
    """Which region each patch belongs to, uint8 `[images, side * side]`; centres are `[images, regions, 2]`."""
    at = ((np.arange(side) + 0.5) / side).astype(np.float32)
    rows = (centres[:, :, 0, None] - at) ** 2
    columns = (centres[:, :, 1, None] - at) ** 2
    nearest = (rows[:, :, :, None] + columns[:, :, None, :]).argmin(axis=1)
    return nearest.reshape(len(centres), -1).astype(np.uint8)


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
