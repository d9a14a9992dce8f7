"""Labels from a text tower: of a vocabulary, the word whose embedding tells a concept's images from all others.

The images are embedded by CLIP, SigLIP or their like. A word's fit to a concept is how far its mean cosine over the
images in which the concept is strong lies above its mean over all, in standard deviations: words that fit every image
fit no concept. The cosine above which a word is said of an image is the one that tells strong images apart best.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.atlas.reader import Atlas
from engine.atlas.schema import REAL
from engine.blindspots.label_scores import score_halves, strong_from
from engine.errors import BlindspotError
from engine.files import write_array
from precompute.labelling.base import ConceptLabel, RealImages, cleaned_label

BATCH = 64
"""Images embedded at once, and kept in one file."""
MOST_WORDS = 50_000


def read_vocabulary(path: Path) -> list[str]:
    """The words of a file, one on a line; empty lines and repetitions are left out.

    Raises
    ------
    BlindspotError
        If it cannot be read, or has fewer than two words or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BlindspotError(f"The vocabulary {path} is not UTF-8 text: save it as such, one word a line.") from error
    words = list(dict.fromkeys(filter(None, map(cleaned_label, lines))))
    if not 2 <= len(words) <= MOST_WORDS:
        raise BlindspotError(f"The vocabulary {path} has {len(words)} words: give 2 to {MOST_WORDS}, one a line.")
    return words


def label_by_vocabulary(
    real: RealImages,
    concepts: Sequence[int],
    tower: str,
    vocabulary: Sequence[str],
    work: Path,
    device: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[ConceptLabel]:
    """Label concepts by the best word of a vocabulary.

    The label is chosen on all real images; its score is that of words chosen, with their thresholds, on one half of
    them and tried on the other, both ways.

    Parameters
    ----------
    tower
        Folder or hub id of a CLIP, SigLIP or their like.
    work
        Where embeddings of images are kept, so that an interrupted run goes on.
    report
        Called with the images embedded and all images.
    """
    cosines = _cosines(real.atlas, tower, vocabulary, work, device, report)
    origin, everything, found = f"zero-shot {Path(tower).name or tower}", np.arange(len(cosines)), []
    for concept in concepts:
        energies = real.energies(concept)
        word = _best_word(cosines, energies, everything)
        if word is None:
            continue
        said = []
        for half in reversed(real.halves):
            chosen = _best_word(cosines, energies, half)
            if chosen is None:
                said.append(np.zeros(len(cosines), bool))
            else:
                said.append(cosines[:, chosen] >= _threshold(cosines[:, chosen], energies, half))
        score = score_halves(energies, said, real.halves)
        found.append(ConceptLabel(concept, vocabulary[word], origin, score))
    return found


def _best_word(cosines: np.ndarray, energies: np.ndarray, images: np.ndarray) -> int | None:
    """The word whose mean cosine over strong images is most standard deviations above that over all `images`."""
    strong = images[energies[images] >= strong_from(energies[images])]
    if not len(strong) or len(strong) == len(images):
        return None
    within = cosines[images]
    spread = within.std(axis=0)
    fit = (cosines[strong].mean(axis=0) - within.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    return int(fit.argmax())


def _threshold(cosine: np.ndarray, energies: np.ndarray, images: np.ndarray) -> float:
    """The cosine that tells strong images of `images` from the others with the highest balanced accuracy."""
    order = images[np.argsort(-cosine[images], kind="stable")]
    strong = energies[order] >= strong_from(energies[images])
    gained = np.cumsum(strong) / strong.sum() - np.cumsum(~strong) / (~strong).sum()
    best = int(gained.argmax())
    after = cosine[order[min(best + 1, len(order) - 1)]]
    return float((cosine[order[best]] + after) / 2)


def _cosines(
    atlas: Atlas, tower: str, vocabulary: Sequence[str], work: Path, device: str, report: Callable[[int, int], None]
) -> np.ndarray:
    """float32 [real images, words]; what an earlier run embedded is kept."""
    import torch

    from engine.devices import pick_device
    from engine.vision.preprocess import to_tensor
    from engine.vision.text_image import TextImageEncoder

    model, images = TextImageEncoder.from_pretrained(tower, device=pick_device(device)), atlas.info.image_range(REAL)
    digests = atlas.images["sha256"].iloc[images.start : images.stop].tolist()
    parts = []
    with torch.inference_mode():
        for start in range(images.start, images.stop, BATCH):
            report(start - images.start, len(images))
            some = range(start, min(start + BATCH, images.stop))
            state = repr((str(tower), [digests[image - images.start] for image in some]))
            file = work / f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.npy"
            if not file.exists():
                embedded = [model.images(to_tensor([atlas.image(image)])).cpu().numpy() for image in some]
                write_array(file, np.concatenate(embedded))
            parts.append(np.load(file, allow_pickle=False))
        words = [model.texts([*vocabulary[at : at + BATCH]]).cpu().numpy() for at in range(0, len(vocabulary), BATCH)]
    report(len(images), len(images))
    return (np.concatenate(parts) @ np.concatenate(words).T).astype(np.float32)
