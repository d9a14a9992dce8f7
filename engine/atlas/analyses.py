"""What an atlas knows beyond delta: single images, pairs of concepts, scalar metrics, drawn images. All is optional.

`Analyses` is the part of `reader.Atlas` that answers these; an atlas from before they existed says so in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from engine.atlas import schema
from engine.atlas.loading import Pieces
from engine.atlas.schema import AtlasInfo
from engine.atlas.storage import BYTES_PER_BYTE, MIB, damaged, parsing, read_drawn, read_stress
from engine.blindspots.label_scores import UNCERTAIN_MARK, is_uncertain
from engine.errors import BlindspotError
from engine.files import regular_file


class Composition(NamedTuple):
    """Which concepts occur together in a source: statistics of Z^T Z (`engine.blindspots.composition`, `.spectrum`)."""

    eps: np.ndarray
    """[n] thresholds on Z^T Z / images, rising, code squared per image; the same for every source of the atlas."""
    l0: np.ndarray
    """[n] int64 entries of Z^T Z / images above each threshold."""
    unique: np.ndarray
    """[n] share of those entries that the real matrix does not have above the threshold; 0 for the real source, nan
    where there is no entry."""
    reference: np.ndarray
    """[n] `unique` of one random half of the real images against the other half: what chance makes of it."""
    eigenvalues: np.ndarray
    """[r] float64 largest eigenvalues of Z^T Z, summed over rows (divide by `images` to compare sources), falling."""
    eigenvectors: np.ndarray
    """[K, r] float32 their eigenvectors, stored as float16."""
    tokens: int
    """Rows of Z: images or tokens of the source, see the header's `composition_rows`."""
    entries: int
    """Entries of Z^T Z above zero, both triangles and the diagonal."""
    images: int
    """Images of the source."""

    def stored(self, source: str) -> dict[str, np.ndarray]:
        """The arrays of `composition.npz` that belong to `source`, by their names there."""
        return {
            "eps": np.asarray(self.eps, np.float64),
            "reference": np.asarray(self.reference, np.float32),
            f"{source}/l0": np.asarray(self.l0, np.int64),
            f"{source}/unique": np.asarray(self.unique, np.float32),
            f"{source}/eigenvalues": np.asarray(self.eigenvalues, np.float64),
            f"{source}/eigenvectors": np.asarray(self.eigenvectors, np.float16),
            f"{source}/size": np.array([self.tokens, self.entries, self.images], np.int64),
        }

    @classmethod
    def of(cls, stored: Mapping[str, np.ndarray], source: str) -> Composition:
        """What `stored` wrote; raises `KeyError` when the source is not there."""
        l0, unique, values, vectors, size = (
            stored[f"{source}/{part}"] for part in ("l0", "unique", "eigenvalues", "eigenvectors", "size")
        )
        return cls(stored["eps"], l0, unique, stored["reference"], values, vectors.astype(np.float32), *size.tolist())


class Analyses:
    """The analyses of one atlas; see `reader.Atlas`, which is one."""

    path: Path
    info: AtlasInfo
    _pieces: Pieces

    def has(self, name: str) -> bool:
        """Whether the atlas holds the table `name` (`links`, `divergence`), the analysis `composition`, or the folder
        `name` (`codes`, `energy`)."""
        files = (schema.table_file(name), f"{name}.npz")
        return any(os.path.lexists(self.path / file) for file in files) or (self.path / name).is_dir()

    def divergence(self, model: str) -> pd.DataFrame:
        """How far each image of `model` is from the real one of its pair (`engine.blindspots.divergence`).

        Returns
        -------
        DataFrame
            Indexed by pair: image and real_image (global ids), l2 (energy units), mean_delta, nearest_real (global id
            of the most similar real image), nearest_real_similarity (cosine of embeddings), p (share of the real
            images that have a real neighbour at least as similar: small means a copy, `engine.blindspots.divergence`).

        Raises
        ------
        BlindspotError
            If the atlas was built before it held this, or `model` is unknown or shares no pair with real images.
        """
        rows = self._rows("divergence", model)
        if not rows.num_rows:
            raise BlindspotError(
                f"Model {model!r} of atlas {self.info.called} shares no captions with the real images, so its images "
                "have no real one to diverge from: pair them in the recipe."
            )
        return rows.drop_columns(["model"]).to_pandas().set_index("pair")

    def changes(self, model: str) -> pd.DataFrame:
        """The pairs of concepts whose co-occurrence changed most in `model`, largest change first.

        Returns
        -------
        DataFrame
            first, second (concepts) and first_label, second_label; real and model (cosine of token codes, in [0, 1]);
            real_tokens, model_tokens and real_images, model_images on which both fire; gap (mean over images of the
            product of codes, model minus real), se, p, and p_adjusted for all pairs that were frequent enough.

        Raises
        ------
        BlindspotError
            If the atlas was built before it held this, or `model` is unknown.
        """
        frame = self._rows("changes", model).drop_columns(["model"]).to_pandas()
        frame = frame.rename(columns={"real_cosine": "real", "model_cosine": "model"})
        labels = self.shown_labels().to_numpy()
        for place, side in enumerate(("first", "second"), start=2):
            frame.insert(place, f"{side}_label", labels[frame[side].to_numpy()])
        return frame

    def metrics(self) -> pd.DataFrame:
        """The scalar metrics of every model, and of one random half of the real images against the other.

        Returns
        -------
        DataFrame
            model (or `real halves`), space (`encoder`: embeddings, `concepts`: energies), fid with its parts fid_mean
            and fid_covariance, fid_half, precision, recall, density, coverage, images (of the model, that were
            compared), k (neighbour that the balls reach to). The columns `fid*` hold Frechet distances between these
            features, not Inception's. Few images bias them upwards: `fid_half` is of as many images as a real half has
            and can be held against the fid of `real halves`. NaN where there are too few images.

        Raises
        ------
        BlindspotError
            If the atlas was built before it held this.
        """
        return self._table("metrics").to_pandas()

    def composition(self, source: str) -> Composition:
        """Which concepts share tokens in the images of `source`.

        Raises
        ------
        BlindspotError
            If the atlas was built before it held this, or `source` is unknown.
        """
        self.info.source(source)
        path = self.path / schema.COMPOSITION
        if not path.exists():
            raise self._older("composition")
        with parsing(path):
            regular_file(self.path, schema.COMPOSITION)
            with ZipFile(path) as members:
                unpacked, size = sum(member.file_size for member in members.infolist()), path.stat().st_size
            if unpacked > 4 * MIB + BYTES_PER_BYTE * size or unpacked > 512 * MIB:
                raise damaged(path, f"it claims {unpacked} bytes in a file of {size} bytes")
            with np.load(path, allow_pickle=False) as stored:
                return Composition.of(stored, source)

    def gallery(self, concept: int | None = None) -> pd.DataFrame:
        """The images that were drawn into the atlas for a concept, or for all (`python -m precompute gallery`).

        Returns
        -------
        DataFrame
            concept, rank (from 0), method, score (s_k), codes_score (the same reduction of the sparse codes),
            reference_score (mean score of the best real images, NaN if there is none), strength, steps, seed,
            particles, states, cap, until, gradient, zeta, recognised (whether the judge sees the concept's label):
            NaN or None where an older atlas did not keep them, or nothing was judged. Empty when nothing was drawn.
        """
        table = self._pieces.table("gallery") if self.has("gallery") else schema.TABLES["gallery"].empty_table()
        if concept is not None:
            table = table.filter(pc.equal(table["concept"], int(concept)))
        drawn = table.to_pandas().astype({"recognised": "boolean"})
        older = drawn["gradient"].isna()
        return drawn.assign(method=drawn["method"].mask(older, drawn["method"].replace(schema.RENAMED_METHODS)))

    def recognition(self) -> pd.DataFrame:
        """The concepts that stand for a label of the atlas's judge (`engine.blindspots.recognition`).

        Returns
        -------
        DataFrame
            Indexed by concept: label, precision (average precision with which the concept's energy ranks the images
            that show the label, on images that did not choose it), n (of those that show it), threshold (probability
            from which the judge sees it; NaN for a judge that names one label an image), real_share (of the concept's
            best real images, the share in which the judge sees it). Empty in an atlas without a judge.
        """
        known = self.has("recognition")
        table = self._pieces.table("recognition") if known else schema.TABLES["recognition"].empty_table()
        return table.to_pandas().set_index("concept")

    def fooling(self, concept: int | None = None) -> pd.DataFrame:
        """How far images get that were optimised to fool a concept, or all (`python -m precompute robustness`).

        Returns
        -------
        DataFrame
            concept, method, score (of the method's best image), reference_score (mean score of the best real images),
            recognised (whether the judge sees the concept's label in it, None if it was not asked), steps, seeds,
            seconds. Empty when nothing was tried, as in an atlas from before there was this table.
        """
        table = self._pieces.table("fooling") if self.has("fooling") else schema.TABLES["fooling"].empty_table()
        if concept is not None:
            table = table.filter(pc.equal(table["concept"], int(concept)))
        return table.to_pandas().astype({"recognised": "boolean"})

    def concept_labels(self) -> pd.DataFrame:
        """What the command `label` says of concepts; where there is none, `concepts` has what the build found.

        Returns
        -------
        DataFrame
            Indexed by concept: label, origin ("captions", "person", or the reader's or text tower's name), description,
            confidence (of a reader), score with score_low and score_high (balanced accuracy with which the label
            predicts activation on `images` held-out images, and its 95 % interval), fuzzing (the same on masked crops;
            of a reader): NaN or empty where it was not measured. Empty in an atlas from before there was this table.
        """
        known = self.has("concept_labels")
        table = self._pieces.table("concept_labels") if known else schema.TABLES["concept_labels"].empty_table()
        return table.to_pandas().set_index("concept").fillna({"description": ""})

    def uncertain_labels(self) -> np.ndarray:
        """[K] bool, whether a concept's label was scored and is hardly better than chance."""
        found, mask = self.concept_labels(), np.zeros(self.info.concepts, bool)
        poor = is_uncertain(found["score"].to_numpy(), found["score_low"].to_numpy())
        mask[found.index[poor & (found["origin"] != schema.PERSON).to_numpy()]] = True
        return mask

    def shown_labels(self) -> pd.Series:
        """The labels as people see them, by concept: uncertain ones are marked (`UNCERTAIN_MARK`)."""
        labels = self._pieces.concepts["label"]
        return labels.where(~self.uncertain_labels(), labels + UNCERTAIN_MARK)

    def stress(self, concept: int | None = None) -> pd.DataFrame:
        """What models draw when they are asked for a concept, or all (`python -m precompute stress`).

        Returns
        -------
        DataFrame
            concept, model, word (that prompts and captions name), prompts_from, prompts and prompts_shown (with at
            least one image that shows it, prompts_low and prompts_high its 95 % interval as shares), images and shown,
            rate with ci_low and ci_high (95 %, clustered by prompt), control (share of control_images of the same
            model that were not asked for it), level (image energy from which an image shows it), real_rate and
            real_control (shares of held-out real images with and without the word), against (what the model is
            compared with), asked_more (rate - control), share (asked_more over that of `against`), p, q and verdict
            (`engine.blindspots.elicitation`), judged and recognised (images that the atlas's judge looked at, and in
            which it sees the word), steps, seed. Empty when nothing was tested, as in an atlas from before there was
            this table.
        """
        table = self._pieces.table("stress") if self.has("stress") else schema.TABLES["stress"].empty_table()
        if concept is not None:
            table = table.filter(pc.equal(table["concept"], int(concept)))
        return table.to_pandas()

    def stress_bytes(self, concept: int, model: str) -> bytes:
        """The best images of a stress test side by side, as webp bytes; raises `BlindspotError` without one."""
        self.info.source(model)
        return read_stress(self.path, concept, model)

    def gallery_bytes(self, concept: int, rank: int) -> bytes:
        """One of the drawn images as webp bytes; raises `BlindspotError` when it is not there."""
        return read_drawn(self.path, concept, rank)

    def _rows(self, name: str, model: str) -> pa.Table:
        if self.info.source(model).kind == "real":
            raise BlindspotError(f"{model!r} is the real source of atlas {self.info.called}: choose a model.")
        table = self._table(name)
        return table.filter(pc.equal(table["model"], model))

    def _table(self, name: str) -> pa.Table:
        if not self.has(name):
            raise self._older(name)
        return self._pieces.table(name)

    def _older(self, name: str) -> BlindspotError:
        if self.info.published:
            return BlindspotError(
                f"The atlas {self.path} holds published statistics and no images, so there is no {name} in it: build "
                "one from images with `python -m precompute run RECIPE`."
            )
        return BlindspotError(
            f"The atlas {self.path} was built before {name} was measured: run `python -m precompute run` again on its "
            "recipe."
        )
