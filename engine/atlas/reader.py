"""Opens an atlas read-only: pieces are loaded when they are first asked for and kept; any thread may ask."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

from engine.atlas import schema
from engine.atlas.analyses import Analyses
from engine.atlas.loading import DictionaryReport, Pieces
from engine.atlas.schema import AtlasInfo, Source
from engine.atlas.storage import CSR, ROWS_PER_BYTE, damaged, decode_thumb, read_document, read_thumb
from engine.blindspots.delta import ESTIMATORS, classify, delta_columns
from engine.blindspots.significance import measure_gap, shared_pairs
from engine.errors import BlindspotError
from engine.hub import find_model

PLAUSIBLE = 1 << 20
"""Numbers of concepts and images that fit the memory, whatever the files say."""


class Atlas(Analyses):
    """One atlas on disk; open it with `Atlas.open(path)`.

    Data frames are copies, the caller may change them. Concepts are 0 .. count - 1, images have global ids that are
    contiguous per source. What an atlas knows of pairs, compositions and metrics is read by `Analyses`.

    Attributes
    ----------
    path : the folder.
    info : its header.
    """

    def __init__(self, path: Path, info: AtlasInfo) -> None:
        self.path = path
        self.info = info
        self._pieces = Pieces(path, info)
        self._delta_frame = lru_cache(maxsize=16)(self._measure_delta)
        self._error = lru_cache(maxsize=16)(self._measure_error)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Atlas:
        """Open the atlas in folder `path`; reads only its header.

        Raises
        ------
        BlindspotError
            If there is no such folder, it is no atlas, it is damaged, or a newer version wrote it.
        """
        folder = Path(os.path.abspath(path))
        header = folder / schema.HEADER
        if not folder.is_dir():
            raise BlindspotError(f"There is no atlas at {folder}: build one with `python -m precompute run RECIPE`.")
        if not header.exists():
            raise BlindspotError(f"{folder} is not an atlas, it has no {schema.HEADER}: open a folder that has one.")
        info = AtlasInfo.from_dict(read_document(folder, schema.HEADER), str(header))
        for count, name in ((info.concepts, "concepts"), (info.images, "images")):
            table = folder / schema.table_file(name)
            size = table.stat().st_size if table.is_file() else 0
            if count > PLAUSIBLE + ROWS_PER_BYTE * size:
                raise damaged(header, f"it says {count} {name}, more than a table of {size} bytes can hold")
        return cls(folder, info)

    def require_same(self) -> None:
        """Raise `BlindspotError` if the atlas was replaced since it was opened."""
        self._pieces.require_same()

    @property
    def sources(self) -> list[Source]:
        """All sources, the real one first."""
        return list(self.info.sources)

    @property
    def models(self) -> list[str]:
        """Names of the generated sources."""
        return [source.name for source in self.info.sources if source.kind == "model"]

    @property
    def has_images(self) -> bool:
        """Whether the atlas holds images; one of published statistics does not."""
        return self.info.images > 0

    @property
    def estimators(self) -> tuple[str, ...]:
        """Names of the delta estimators that its statistics allow: without spread there is no `standardised`."""
        return tuple(name for name in ESTIMATORS if name != "standardised" or not self.info.published)

    @property
    def link_hosts(self) -> tuple[str, ...]:
        """The hosts that its image links point to; empty when it has no links. Nothing here ever opens a link."""
        return self._pieces.link_hosts if self.has("links") else ()

    @property
    def count(self) -> int:
        """Number of concepts, K."""
        return self.info.concepts

    @property
    def concepts(self) -> pd.DataFrame:
        """Indexed by concept: x, y, cluster, label, label_origin (both may be empty), words (list of str), dead."""
        return self._pieces.concepts.copy()

    @property
    def images(self) -> pd.DataFrame:
        """Indexed by image: source, pair, caption, file, width, height, sha256."""
        return self._pieces.images.copy()

    def delta(
        self, model: str, estimator: str = "gap", temperature: float | None = None, reference: str = schema.REAL
    ) -> pd.DataFrame:
        """How much `model` under- or over-produces each concept.

        Recomputed from the stored moments and standard errors, so any estimator and temperature is instant. Against
        another model the standard errors are computed from the image energies once, paired where both models have an
        image of the same pair.

        Parameters
        ----------
        model : one of `models`.
        estimator : `gap`, `relative`, `share` or `standardised` (`engine.blindspots.delta`).
        temperature : T of the sigmoid; by default the atlas's for its default estimator, else the estimator's own.
        reference : what the model is compared with: `real` or another of `models`, such as the one before fine-tuning.

        Returns
        -------
        DataFrame
            Indexed by concept: energy_real (of the reference, whatever it is), energy_model, gap, relative, delta,
            ci_low and ci_high (95 % interval of delta), p and q (of no gap, the same for every estimator; over the
            concepts that fire in real images), paired (whether pairing went into them).
            Interval, p and q are NaN in an atlas of published statistics.
        """
        if model not in self.models:
            known = ", ".join(self.models) or "none"
            raise BlindspotError(f"Atlas {self.info.called} has no model {model!r}: choose one of {known}.")
        if reference == model or reference not in (schema.REAL, *self.models):
            others = ", ".join([schema.REAL, *(name for name in self.models if name != model)])
            raise BlindspotError(f"Model {model!r} cannot be compared with {reference!r}: choose {others}.")
        if estimator in ESTIMATORS and estimator not in self.estimators:
            raise BlindspotError(
                f"Atlas {self.info.called} holds published means without their spread, which {estimator!r} needs: "
                f"choose one of {', '.join(self.estimators)}."
            )
        if temperature is None and estimator == self.info.delta.estimator:
            temperature = self.info.delta.temperature
        return self._delta_frame(model, estimator, temperature, reference).copy()

    def status(
        self,
        model: str,
        estimator: str = "gap",
        temperature: float | None = None,
        suppressed: float | None = None,
        exaggerated: float | None = None,
    ) -> np.ndarray:
        """[K] `suppressed`, `exaggerated` or `neutral`, by thresholds on delta (default: the atlas's)."""
        low = self.info.delta.suppressed if suppressed is None else suppressed
        high = self.info.delta.exaggerated if exaggerated is None else exaggerated
        return classify(self.delta(model, estimator, temperature)["delta"].to_numpy(), low, high)

    def frequency(self) -> np.ndarray:
        """[K] share of the real images in which the concept fires; NaN where it was not published."""
        measured = self._pieces.energies[schema.REAL]
        return measured.images_active / max(measured.moments.images, 1)

    def energy(self, source: str) -> sparse.csr_matrix:
        """[images, K] float32 image energies of `source`, in the order of its images."""
        self.info.source(source)
        return self._pieces.matrix("energy", source).rows()

    def codes(self, source: str) -> CSR:
        """[images * tokens, K] token codes of `source`, memory-mapped; prefix tokens first, patches row-major."""
        self.info.source(source)
        return self._pieces.matrix("codes", source)

    def exemplars(self, source: str, concept: int, count: int = 9) -> pd.DataFrame:
        """The images of `source` that show `concept` best: rank, image, score (mean patch code), caption, pair."""
        self.info.source(source)
        frame = pd.DataFrame(self._pieces.exemplars.find(source, self._concept(concept), count))
        rows = self._pieces.images.iloc[frame["image"].to_numpy()]
        return frame.assign(caption=rows["caption"].to_numpy(), pair=rows["pair"].to_numpy())

    def heatmap(self, image: int, concept: int) -> np.ndarray:
        """[h, w] float32, the codes of `concept` over the patches of `image`."""
        image, concept = self._image(image), self._concept(concept)
        source = self._source_of(image)
        tokens = self.info.tokens
        first = (image - self.info.image_range(source).start) * tokens
        codes = self._pieces.matrix("codes", source)
        return codes.column(concept, first + self.info.prefix_tokens, first + tokens).reshape(self.info.grid)

    def image(self, image: int) -> Image.Image:
        """The thumbnail of `image`, RGB."""
        self._pieces.require_same()
        return decode_thumb(self.path, self._image(image))

    def thumb_bytes(self, image: int) -> bytes:
        """The thumbnail of `image` as webp bytes."""
        self._pieces.require_same()
        return read_thumb(self.path, self._image(image))

    def caption(self, image: int) -> str:
        """The caption of `image`; empty when it has none."""
        return str(self._pieces.images["caption"].iat[self._image(image)])

    def counterparts(self, image: int) -> dict[str, int]:
        """The images of the other sources that belong to the same pair, {source: image}; empty when unpaired."""
        image = self._image(image)
        pairs = self._pieces.images["pair"].to_numpy()
        if pairs[image] < 0:
            return {}
        same = np.flatnonzero(pairs == pairs[image]).tolist()
        return {self._source_of(other): other for other in same if other != image}

    def neighbours(self, concept: int, kind: str = "cooccurrence", count: int = 8) -> pd.DataFrame:
        """The closest concepts, best first: other, value.

        The value is a cosine of token codes for `cooccurrence`, a cosine of atoms for `atom`, and minus the distance
        on the map for `map`; larger is closer for each.
        """
        if kind not in schema.NEIGHBOUR_KINDS:
            raise BlindspotError(f"There are no {kind!r} neighbours: choose {', '.join(schema.NEIGHBOUR_KINDS)}.")
        return pd.DataFrame(self._pieces.neighbours.find(kind, self._concept(concept), count))

    def nearest_images(self, query: int | np.ndarray, source: str | None = None, count: int = 12) -> pd.DataFrame:
        """The most similar images: image, similarity (cosine of embeddings).

        Parameters
        ----------
        query : a global image id (which is left out of the answer) or an embedding [d].
        source : only images of this source.
        count : how many.
        """
        index = self._pieces.image_index
        within = range(self.info.images) if source is None else self.info.image_range(source)
        if np.ndim(query) == 0:
            image = self._image(int(query))
            hits = index.search(index.vector(image), within, count + 1)
            keep = np.flatnonzero(hits.images != image)[:count]
            hits = type(hits)(hits.images[keep], hits.similarities[keep])
        else:
            hits = index.search(np.asarray(query), within, count)
        return pd.DataFrame({"image": hits.images, "similarity": hits.similarities})

    def search(self, text: str, count: int = 20) -> pd.DataFrame:
        """Concepts whose number, label or words fit `text`, best first: concept, label, score."""
        found = self._pieces.search.find(text, count)
        frame = pd.DataFrame(found, columns=["concept", "score"])
        labels = self._pieces.concepts["label"].iloc[frame["concept"].to_numpy(np.int64)]
        return pd.DataFrame({"concept": frame["concept"], "label": labels.to_numpy(), "score": frame["score"]})

    def matching(self, text: str) -> np.ndarray:
        """[K] bool, whether a concept's number, label or words fit each word of `text`."""
        mask = np.zeros(self.count, bool)
        mask[list(self._pieces.search.matching(text))] = True
        return mask

    def known_words(self, text: str, count: int = 3) -> list[str]:
        """Words of this atlas that are spelled much like one of `text` that it does not know, closest first."""
        return self._pieces.search.spelled_like(text, count)

    def links(self, source: str, concept: int) -> pd.DataFrame:
        """Addresses of published images of `source`: rank, of, url; empty without links.

        Rank 0 shows `concept` best among the images of its source; the others belong to the same pair as the best image
        of the source `of`.
        """
        self.info.source(source)
        if not self.has("links"):
            return pd.DataFrame({"rank": [], "of": [], "url": []})
        return pd.DataFrame(self._pieces.links.find(source, self._concept(concept), len(self.sources)))

    def published(self) -> pd.DataFrame | None:
        """Numbers that were published without saying of which images: energy, fires; None in a measured atlas."""
        return self._pieces.published.copy() if self.has("published") else None

    def labels(self) -> pd.DataFrame | None:
        """Ground truth of the images (image, attribute, value), or None when the atlas has none."""
        return self._pieces.table("labels").to_pandas() if self.has("labels") else None

    def dictionary_report(self) -> DictionaryReport | None:
        """How good the dictionary is, or None when the atlas was built without saying so."""
        if not (self.path / schema.REPORT).is_file():
            return None
        report = self._pieces.report
        return report._replace(concepts=report.concepts.copy())

    def resolve(self, ref: str, files: bool = False) -> str | Path:
        """What `from_pretrained` accepts for the header's `encoder.id` or `prior.id`.

        A folder, or with `files` a file of weights, absolute or relative to the atlas, becomes its path; anything else
        that looks like a Hugging Face id stays as it is.
        """
        missing = f"The atlas {self.path} refers to the model {ref!r}, but there is no folder {self.path / ref}."
        return find_model(ref, missing, base=self.path, files=files)

    def _measure_error(self, model: str, reference: str) -> tuple[np.ndarray, bool]:
        """The standard error of a model's gap to a reference [K], and whether pairs went into it."""
        if reference == schema.REAL or self.info.published:
            return self._pieces.standard_errors[model], self.info.source(model).paired
        pairs = self._pieces.images["pair"].to_numpy()
        rows, model_rows = shared_pairs(*(pairs[list(self.info.image_range(name))] for name in (reference, model)))
        real, generated = (self._pieces.matrix("energy", name) for name in (reference, model))
        found = measure_gap(real, generated, rows, model_rows)
        return found.se, found.pairs >= 2

    def _measure_delta(self, model: str, estimator: str, temperature: float | None, reference: str) -> pd.DataFrame:
        real, generated = (self._pieces.energies[name] for name in (reference, model))
        error, paired = self._error(model, reference)
        columns = delta_columns(
            real.moments,
            generated.moments,
            error,
            live=~self._pieces.concepts["dead"].to_numpy(),
            active=(real.images_active, generated.images_active),
            paired=paired,
            estimator=estimator,
            temperature=temperature,
        )
        energies = {"energy_real": real.moments.mean, "energy_model": generated.moments.mean}
        index = pd.RangeIndex(self.count, name="concept")
        frame = pd.DataFrame({**energies, **columns, "paired": paired}, index=index)
        if self.info.published:
            frame[["ci_low", "ci_high", "p", "q"]] = np.nan
        return frame

    def _source_of(self, image: int) -> str:
        for source in self.info.sources:
            if image in self.info.image_range(source.name):
                return source.name
        raise self._no_image(image)

    def _concept(self, concept: int) -> int:
        if not 0 <= concept < self.count:
            raise BlindspotError(f"There is no concept {concept} in this atlas: they go from 0 to {self.count - 1}.")
        return int(concept)

    def _image(self, image: int) -> int:
        if not 0 <= image < self.info.images:
            raise self._no_image(image)
        return int(image)

    def _no_image(self, image: int) -> BlindspotError:
        return BlindspotError(f"There is no image {image} in this atlas: they go from 0 to {self.info.images - 1}.")
