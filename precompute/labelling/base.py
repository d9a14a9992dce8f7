"""What every way of labelling shares: a label with its score, which real images count, and the table in the atlas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.reader import Atlas
from engine.atlas.schema import DESCRIPTION_LENGTH, LABEL_LENGTH, REAL, TABLES
from engine.atlas.writer import write_concept_labels
from engine.blindspots.label_scores import Halves, LabelScore, split_halves
from engine.errors import BlindspotError
from engine.readers.base import clean_text

UNSCORED = LabelScore(np.nan, np.nan, np.nan, 0)


class ConceptLabel(NamedTuple):
    """A row of the table `concept_labels`."""

    concept: int
    label: str
    origin: str
    score: LabelScore = UNSCORED
    description: str = ""
    confidence: float = np.nan
    fuzzing: float = np.nan


class RealImages:
    """The real images of an atlas as labels are scored on them.

    Attributes
    ----------
    captions : of the real images; empty where there is none.
    halves : two random halves of them; of those with a caption, if `with_captions`.

    Raises
    ------
    BlindspotError
        If there are no images, or no captions where they are needed.
    """

    def __init__(self, atlas: Atlas, with_captions: bool = False) -> None:
        if not atlas.has_images:
            raise BlindspotError(f"The atlas {atlas.path} holds published statistics and no images to label by.")
        self.atlas, first = atlas, atlas.info.image_range(REAL)
        self.captions = atlas.images["caption"].iloc[first.start : first.stop].tolist()
        used = np.array([not with_captions or bool(caption) for caption in self.captions])
        if used.sum() < 2:
            raise BlindspotError(
                f"The real images of {atlas.path} have no captions to take words from: give --reader, or --text-tower "
                "with --vocabulary."
            )
        places = np.flatnonzero(used)
        self.halves = Halves(*(places[half] for half in split_halves(len(places))))
        self.by_concept: sparse.csc_matrix = atlas.energy(REAL).tocsc()

    def energies(self, concept: int) -> np.ndarray:
        """[images] energies of one concept."""
        return self.by_concept[:, [concept]].toarray().ravel()


def cleaned_label(text: str) -> str:
    """A label as the atlas keeps it: one line of at most `LABEL_LENGTH` characters."""
    return "".join(char for char in clean_text(text, LABEL_LENGTH) if char.isprintable())


def stored(atlas: Atlas) -> dict[int, ConceptLabel]:
    """The labels that the atlas's table has."""
    found = {}
    for row in atlas.concept_labels().reset_index().to_dict("records"):
        images = 0 if pd.isna(row["images"]) else int(row["images"])
        score = LabelScore(row["score"], row["score_low"], row["score_high"], images)
        found[row["concept"]] = ConceptLabel(
            row["concept"], row["label"], row["origin"], score, row["description"], row["confidence"], row["fuzzing"]
        )
    return found


def write(atlas: Atlas, rows: Iterable[ConceptLabel]) -> None:
    """Put labels into the atlas, unless it has the same."""
    columns = TABLES["concept_labels"].names
    table = pd.DataFrame(
        [
            (row.concept, row.label, row.origin, clean_text(row.description, DESCRIPTION_LENGTH) or None,
             row.confidence, row.score.score, row.score.low, row.score.high, row.score.images, row.fuzzing)
            for row in sorted(rows)
        ],
        columns=columns,
    )  # fmt: skip
    before = atlas.concept_labels().reset_index()[columns]
    types = {"concept": "int32", "images": "int32", **dict.fromkeys(columns[4:8], "float32"), "fuzzing": "float32"}
    if not table.astype(types).fillna({"description": ""}).equals(before.astype(types)):
        write_concept_labels(atlas.path, table)
