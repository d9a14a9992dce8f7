"""What an atlas sees in one image, of its own or from elsewhere: concepts with heat maps, and the nearest images."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from PIL import Image

    from engine.atlas.reader import Atlas

BEST = 8
"""Real images whose mean score a concept's score is compared with."""
CANDIDATES = 256
"""Concepts of the highest scores, among which those are looked for that are nearest to their best images."""


COMPARED, FEWEST = 300, 20
"""Real images, at most and at least, whose nearest others say what is usual."""


class Inspection(NamedTuple):
    """An image through an atlas's encoder and dictionary."""

    codes: sparse.csc_matrix
    """[patches, K] float32, row by row of the grid."""
    embedding: Float[np.ndarray, " d"] | None
    """Where its neighbours are looked for; None for an image of the atlas, which is found by its number."""


class Leading(NamedTuple):
    """The concepts that an image shows most, see `leading_concepts`."""

    concepts: list[int]
    scores: list[float]
    """Mean code over the patches."""
    shares: list[float]
    """Of the mean score of the `BEST` real images that show the concept most."""


def stored_image(atlas: Atlas, image: int) -> Inspection:
    """Look at an image of the atlas, whose codes are stored; no model is loaded.

    Raises
    ------
    BlindspotError
        If there is no such image.
    """
    atlas.image(image)  # a sentence where there is none
    source = str(atlas.images["source"].iat[image])
    first = (image - atlas.info.image_range(source).start) * atlas.info.tokens
    rows = atlas.codes(source).rows(first + atlas.info.prefix_tokens, first + atlas.info.tokens)
    return Inspection(rows.tocsc(), None)


def foreign_image(atlas: Atlas, image: Image.Image, device: str | None = None) -> Inspection:
    """Look at any image through the atlas's encoder and dictionary, as its own were encoded.

    Parameters
    ----------
    image
        RGB, of any size.
    device
        Where the models run; None takes the GPU if there is one.

    Raises
    ------
    BlindspotError
        If the models cannot be loaded, see `ModelBundle`, or the encoder is not the one the atlas was made with.
    """
    import torch

    from engine.samplers.models import ModelBundle
    from engine.vision.preprocess import to_tensor

    models = ModelBundle(atlas, device)
    with torch.inference_mode():
        tokens = models.encoder(to_tensor([image], models.encoder.spec).to(models.device))
        if (found := tuple(tokens.patches.shape[1:3])) != tuple(atlas.info.grid):
            sides = [" × ".join(map(str, grid)) for grid in (found, atlas.info.grid)]
            raise BlindspotError(
                f"The encoder {models.encoder.spec.id} gives {sides[0]} patches, and atlas {atlas.info.called} was "
                f"made with {sides[1]}: this is another encoder; build the atlas again."
            )
        embedding = tokens.embedding()[0].float().cpu().numpy()
        indices, values = (part.cpu().numpy() for part in models.dictionary.encode(tokens.patches.flatten(0, 2)))
    patches, active = indices.shape
    rows = np.repeat(np.arange(patches), active)
    shape = (patches, atlas.count)
    codes = sparse.csc_matrix((values.ravel().astype(np.float32), (rows, indices.ravel())), shape=shape)
    codes.eliminate_zeros()
    return Inspection(codes, embedding)


def leading_concepts(atlas: Atlas, codes: sparse.csc_matrix, count: int) -> Leading:
    """Find the concepts that an image shows most, measured by what their best real images reach.

    Scores alone would lead with concepts that are strong in every image. Of concepts with the same label the nearest
    comes first and the others after all labels: a sky of ten concepts hides no car. Dead concepts are left out.
    """
    scores = np.asarray(codes.mean(axis=0), np.float64).ravel()
    scores[atlas.concepts["dead"].to_numpy(bool)] = 0
    candidates = np.argsort(scores)[::-1][: max(CANDIDATES, count)]
    candidates = candidates[scores[candidates] > 0]
    shares = np.array([scores[concept] / _best_score(atlas, int(concept)) for concept in candidates])
    labels, seen, again = atlas.concepts["label"].to_numpy(), set(), []
    order = np.argsort(-shares, kind="stable")
    for place in order:
        label = labels[candidates[place]]
        again.append(bool(label) and label in seen)
        seen.add(label)
    order = order[np.argsort(again, kind="stable")][:count]
    chosen = candidates[order]
    return Leading(chosen.tolist(), scores[chosen].tolist(), shares[order].tolist())


@lru_cache(maxsize=100_000)
def _best_score(atlas: Atlas, concept: int) -> float:
    found = atlas.exemplars("real", concept, BEST)["score"]
    return float(found.mean()) if len(found) else np.inf


class Likeness(NamedTuple):
    """How near an image is to the real ones."""

    similarity: float
    """Cosine to the nearest real image."""
    usual: float
    """What all but one in a hundred real images have to another real one."""


def how_alike(atlas: Atlas, query: int | np.ndarray) -> Likeness | None:
    """Compare an image's nearest real image with those that real images have; None where there are none.

    Parameters
    ----------
    query
        Number of an image of the atlas, or an embedding.
    """
    found = atlas.nearest_images(query, "real", 1)["similarity"]
    usual = _usual_similarity(atlas)
    return Likeness(float(found.iloc[0]), usual) if len(found) and usual is not None else None


@lru_cache(maxsize=8)
def _usual_similarity(atlas: Atlas) -> float | None:
    images = atlas.info.image_range("real")
    chosen = np.linspace(images.start, images.stop - 1, min(len(images), COMPARED)).round().astype(int)
    near = [atlas.nearest_images(int(image), "real", 1)["similarity"] for image in chosen]
    values = [float(one.iloc[0]) for one in near if len(one)]
    return float(np.quantile(values, 0.01)) if len(values) >= FEWEST else None


def heat_map(atlas: Atlas, codes: sparse.csc_matrix, concept: int) -> Float[np.ndarray, "h w"]:
    """Codes of a concept over the patches."""
    return codes[:, [concept]].toarray().reshape(atlas.info.grid).astype(np.float32)
