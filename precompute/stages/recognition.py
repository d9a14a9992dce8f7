"""What the recipe's judge sees in the real images, and which concept stands for which of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from engine.atlas.schema import REAL, TABLES
from engine.atlas.writer import AtlasWriter
from engine.blindspots.recognition import LabelMatch, match_labels
from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.files import read_json, write_array, write_json
from engine.vision.judge import Judge
from engine.vision.preprocess import decoded_image, to_tensor
from precompute.runner import Context, Progress, Stage, model_input
from precompute.stages.corpus import LABELS, ImageRecord, images_of
from precompute.stages.energies import live_concepts, statistics_of, stored_energy

TABLE = "recognition.json"
CHUNK = 256
"""Images judged between two files, so that a killed run goes on."""
TOP = 8
"""Real images that show a concept best."""
LEAST_SHARE = 0.5
"""Of these, the share that the judge must recognise for a match to be kept. A concept whose energy lies on other tokens
than its score, such as registers, may rank a label's images first and yet show something else where it is strongest."""


class RecognitionStage(Stage):
    """`recognition`: the concepts that stand for one of the judge's labels; only in recipes with a judge."""

    version = 3

    def __init__(self, context: Context) -> None:
        judge = context.recipe.judge
        assert judge is not None
        params, reads = model_input("judge.id", judge.id, {"revision": judge.revision})
        after = [context.images_stage(REAL), *(f"energies/{name}" for name in context.sources)]
        super().__init__(context, "recognition", params, after, reads)
        self.spec = judge

    def preflight(self) -> None:
        """Open the judge, which is small beside what it judges."""
        Judge.from_pretrained(self.spec, "cpu")

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the judge's probabilities and `recognition.json`."""
        context = self.context
        judge = Judge.from_pretrained(self.spec, pick_device(context.recipe.encoder.device))
        images = images_of(context, REAL)
        seen = judge_images(judge, images, context.recipe.limits.max_pixels, folder, progress)
        truth = context.folder(context.images_stage(REAL)) / LABELS
        shown = with_ground_truth(seen, judge.labels, read_json(truth) if truth.exists() else [])
        matches = match_labels(stored_energy(context, REAL), shown, np.flatnonzero(live_concepts(context)))
        rows = recognition_rows(matches, judge, seen, statistics_of(context, REAL)["exemplars"])
        write_json(folder / TABLE, rows)
        return {"concepts": len(rows), "labels": len({row["label"] for row in rows})}

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `recognition`."""
        rows = read_json(context.folder("recognition") / TABLE)
        writer.write_table("recognition", pd.DataFrame(rows, columns=TABLES["recognition"].names))


def judge_images(
    judge: Judge, images: Sequence[ImageRecord], max_pixels: int, folder: Path, progress: Progress
) -> np.ndarray:
    """What the judge decides, bool [images, labels]; its probabilities are kept in files of `CHUNK` images."""
    seen = np.zeros((len(images), len(judge.labels)), bool)
    for start in range(0, len(images), CHUNK):
        path = folder / f"probabilities-{start // CHUNK:05d}.npy"
        if not path.exists():
            tensors = []
            for record in images[start : start + CHUNK]:
                with decoded_image(record.path, max_pixels=max_pixels) as image:
                    tensors.append(to_tensor([image], judge.preparation))
            write_array(path, judge.probabilities(torch.cat(tensors)))
        found = np.load(path)
        if found.shape[1] != len(judge.labels):
            raise BlindspotError(
                f"The judge's stored answers are over {found.shape[1]} labels, not {len(judge.labels)}."
            )
        seen[start : start + CHUNK] = judge.decide(found)
        progress(min(start + CHUNK, len(images)), len(images))
    return seen


def with_ground_truth(seen: np.ndarray, labels: Sequence[str], truth: Sequence[Sequence]) -> np.ndarray:
    """What the images show: the judge's decisions, and the truth where the corpus has it.

    Parameters
    ----------
    seen : the judge's decisions, bool `[images, labels]`.
    labels : the judge's; one called "kind: disc" is what the corpus calls attribute "kind", value "disc".
    truth : rows of [position, attribute, value].
    """
    column = {label: index for index, label in enumerate(labels)}
    told = {f"{attribute}: {value}" for _, attribute, value in truth} & column.keys()
    if not told:
        return seen
    shown = seen.copy()
    shown[:, [column[label] for label in told]] = False
    for position, attribute, value in truth:
        if (label := f"{attribute}: {value}") in told:
            shown[position, column[label]] = True
    return shown


def recognition_rows(
    matches: Sequence[LabelMatch], judge: Judge, seen: np.ndarray, exemplars: np.ndarray
) -> list[dict]:
    """Rows of `recognition.parquet`, without concepts whose best real images the judge does not recognise.

    Parameters
    ----------
    matches : concepts and labels.
    judge : whose labels they are.
    seen : its decisions on the real images, bool `[images, labels]`.
    exemplars : per concept its best real images, best first, -1 where there are no more.
    """
    rows = []
    for match in matches:
        best = exemplars[match.concept][:TOP]
        share = float(seen[best[best >= 0], match.label].mean())
        if share < LEAST_SHARE:
            continue
        rows.append(
            {
                "concept": match.concept,
                "label": judge.labels[match.label],
                "precision": match.precision,
                "n": match.images,
                "threshold": None if judge.thresholds is None else float(judge.thresholds[match.label]),
                "real_share": share,
            }
        )
    return rows
