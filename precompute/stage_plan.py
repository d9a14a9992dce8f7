"""The stages of a recipe: what each of them reads, what decides its result, and the function that does it.

The order is chosen so that what is wrong with the inputs shows before the long work starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.atlas.schema import HEADER, REAL
from engine.files import file_hash, read_json, write_json, write_whole
from precompute.analysis_plan import analysis_stages
from precompute.inputs import decisive, model_input, reference
from precompute.plan import Progress, Stage, WorkDirectory
from precompute.recipe import Folder, Pipeline, Recipe, World

HEADER_MARK = "header.sha256"
PAIRING = "pairing.json"


def source_stage(recipe: Recipe, name: str) -> str:
    """The stage that provides the images of a source."""
    drawn = name != REAL and isinstance(recipe.models[name], Pipeline)
    return f"{'generate' if drawn else 'corpus'}/{name}"


class StagePlan:
    """The stages of one recipe in one work directory."""

    def __init__(self, recipe: Recipe, work: WorkDirectory, out: Path) -> None:
        self.recipe, self.work, self.out = recipe, work, out
        self.sources = (REAL, *recipe.models)

    def stages(self) -> list[Stage]:
        """All stages, each after those it reads."""
        folders = [name for name, model in self.recipe.models.items() if isinstance(model, Folder)]
        pipelines = [name for name in self.recipe.models if name not in folders]
        stages = [self._corpus(REAL, self.recipe.real)]
        stages += [self._corpus(name, self.recipe.models[name]) for name in folders]
        stages += [self._pairing(name) for name in folders]
        stages += [self._encode(REAL)]
        stages += [self._generate(name, self.recipe.models[name]) for name in pipelines]
        stages += [self._pairing(name) for name in pipelines]
        stages += [self._encode(name) for name in self.recipe.models]
        stages += [self._dictionary(), *(self._energies(name) for name in self.sources), self._report()]
        stages += [self._layout(), self._index(), self._words(), *analysis_stages(self)]
        stages += [self._thumbs(name) for name in self.sources]
        return [*stages, self._assemble([stage.name for stage in stages])]

    def _corpus(self, name: str, source: Folder | World) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.corpus import draw_world, gather_folder

            gather = draw_world if isinstance(source, World) else gather_folder
            return gather(source, self.recipe.limits, folder, progress)

        params = {"source": decisive(source, "pairing"), "limits": decisive(self.recipe.limits)}
        reads = (source.folder,) if isinstance(source, Folder) else ()
        return Stage(f"corpus/{name}", run, params, reads=reads)

    def _generate(self, name: str, source: Pipeline) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.generate import generate, prompts_of

            return generate(source, prompts_of(self.pictures(REAL), name), folder, progress)

        params, reads = model_input(f"models.{name}.pipeline", source.pipeline, decisive(source, "pipeline"))
        return Stage(f"generate/{name}", run, params, after=(f"corpus/{REAL}",), reads=reads)

    def _pairing(self, name: str) -> Stage:
        source = self.recipe.models[name]
        how = source.pairing if isinstance(source, Folder) else "generated"

        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            return self._pair(name, how, folder)

        after = (f"corpus/{REAL}", source_stage(self.recipe, name))
        return Stage(f"pairing/{name}", run, {"how": how}, after=after, unit="models")

    def _pair(self, name: str, how: str, folder: Path) -> Mapping[str, Any]:
        from precompute.stages.manifest import read_skipped
        from precompute.stages.pairing import pair

        model = self.pictures(name)
        if how == "generated":
            kind, partner = how, [int(picture.stem) for picture in model]
        else:
            skipped = [*read_skipped(self.images_of(REAL)), *read_skipped(self.images_of(name))]
            kind, found = pair(self.pictures(REAL), model, how, name, skipped)
            partner = found.tolist()
        write_json(folder / PAIRING, {"kind": kind, "partner": partner})
        return {"pairing": kind, "paired": sum(other >= 0 for other in partner)}

    def _encode(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.encode import encode

            part, limits = self.recipe.encoder, self.recipe.limits
            return encode(part, self.pictures(name), limits.max_pixels, folder, progress)

        params, reads = model_input("encoder.id", self.recipe.encoder.id, decisive(self.recipe.encoder, "id"))
        return Stage(f"encode/{name}", run, params, after=(source_stage(self.recipe, name),), reads=reads)

    def _dictionary(self) -> Stage:
        part = self.recipe.dictionary

        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.dictionary import make_dictionary

            return make_dictionary(part, self.training_shards(), folder, progress)

        after = tuple(f"encode/{name}" for name in self.trained_on)
        if part.load is not None:
            return Stage("dictionary", run, {"load": True}, after=after, reads=(part.load,), unit="steps")
        # The size of a training batch decides the result, unlike the others'.
        params = decisive(part, "load", "report_seeds") | {"batch": part.batch}
        return Stage("dictionary", run, params, after=after, unit="steps")

    def _report(self) -> Stage:
        part = self.recipe.dictionary

        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.encode import token_shards
            from precompute.stages.report import make_report

            shards = token_shards(self.work.folder(f"encode/{REAL}"))
            return make_report(part, self.dictionary_folder, shards, self.training_shards(), folder, progress)

        after = ("dictionary", *(f"encode/{name}" for name in self.trained_on))
        params = {"seeds": 1 if part.load else part.report_seeds}
        return Stage("report", run, params, after=after, unit="%")

    def _energies(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from engine.devices import pick_device
            from engine.dictionary.checkpoints import load_dictionary
            from precompute.stages.encode import read_spec
            from precompute.stages.energies import measure

            dictionary = load_dictionary(self.dictionary_folder, pick_device(self.recipe.dictionary.device))
            tokens = self.work.folder(f"encode/{name}")
            return measure(dictionary, read_spec(tokens), tokens, folder, progress)

        return Stage(f"energies/{name}", run, after=("dictionary", f"encode/{name}"), unit="shards")

    def _layout(self) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.layout import write_map

            return write_map(self.csr(REAL, "energy"), self.atoms, self.recipe.layout, folder)

        params = decisive(self.recipe.layout)
        return Stage("layout", run, params, after=("dictionary", f"energies/{REAL}"), unit="maps")

    def _index(self) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.index import find_neighbours
            from precompute.stages.layout import read_map

            xy = read_map(self.work.folder("layout")).xy
            return find_neighbours(self.csr(REAL, "codes"), self.atoms, xy, folder)

        return Stage("index", run, after=("dictionary", "layout", f"energies/{REAL}"), unit="tables")

    def _words(self) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.words import write_words

            captions = [picture.caption for picture in self.pictures(REAL)]
            return write_words(self.csr(REAL, "energy"), captions, self.recipe.words.count, folder)

        params = decisive(self.recipe.words)
        return Stage("words", run, params, after=(f"energies/{REAL}", f"corpus/{REAL}"), unit="tables")

    def _thumbs(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            from precompute.stages.thumbs import shrink

            limits = self.recipe.limits
            return shrink(self.pictures(name), self.recipe.thumbs.size, limits.max_pixels, folder, progress)

        params = decisive(self.recipe.thumbs)
        return Stage(f"thumbs/{name}", run, params, after=(source_stage(self.recipe, name),))

    def _assemble(self, before: list[str]) -> Stage:
        recipe = self.recipe
        shown = {name: [source.label, source.description] for name, source in self._shown().items()}
        refs = {"encoder": reference(recipe.encoder.id, self.out), "prior": self._prior()}
        delta = recipe.delta.model_dump()
        params = {"name": recipe.name, "description": recipe.description, "shown": shown, "delta": delta, **refs}
        return Stage("assemble", self._run_assemble, params, after=tuple(before), unit="atlases")

    def _run_assemble(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        from engine.blindspots.delta import DeltaSettings
        from precompute.stages.assemble import Findings, assemble
        from precompute.stages.encode import read_spec

        spec = read_spec(self.work.folder(f"encode/{REAL}")).to_dict()
        found = Findings(
            name=self.recipe.name,
            description=self.recipe.description,
            encoder=spec | {"id": reference(self.recipe.encoder.id, self.out)},
            dictionary=self.work.summary("dictionary"),
            dictionary_folder=self.dictionary_folder,
            atoms=self.atoms,
            layout=self.work.folder("layout"),
            index=self.work.folder("index"),
            words=self.work.folder("words"),
            metrics=[self.work.folder(f"metrics/{name}") for name in self.sources],
            report=self.work.folder("report"),
            delta=DeltaSettings(**self.recipe.delta.model_dump()),
            prior=self._prior(),
            labels=self._labels(),
            fingerprints={stage.name: self.work.record(stage.name)["fingerprint"] for stage in self.stages()[:-1]},
        )
        info = assemble(found, [self._result(name) for name in self.sources], self.out)
        mark = file_hash(self.out / HEADER)
        write_whole(folder / HEADER_MARK, lambda partial: partial.write_text(mark))
        return {"files": len(info.files)}

    def _result(self, name: str) -> Any:
        """What is known of one source, for `assemble`."""
        from precompute.stages.assemble import SourceResult

        shown = self._shown()[name]
        return SourceResult(
            name=name,
            label=shown.label or name,
            description=shown.description,
            pictures=self.pictures(name),
            skipped=self.work.summary(source_stage(self.recipe, name))["skipped"],
            pairing="none" if name == REAL else self._read_pairing(name)["kind"],
            partner=self.partner(name),
            energies=self.work.folder(f"energies/{name}"),
            thumbs=self.work.folder(f"thumbs/{name}"),
            embeddings=self.embeddings(name),
            divergence=self.work.folder(f"divergence/{name}"),
            composition=self.work.folder(f"composition/{name}"),
        )

    def _shown(self) -> dict[str, Any]:
        return {REAL: self.recipe.real, **self.recipe.models}

    def _prior(self) -> dict[str, Any] | None:
        prior = self.recipe.prior
        if prior is None:
            return None
        model_input("prior.id", prior.id, {})
        return prior.to_dict() | {"id": reference(prior.id, self.out)}

    def _labels(self) -> list[tuple[int, str, str]] | None:
        from precompute.stages.corpus import LABELS

        path = self.images_of(REAL) / LABELS
        return [tuple(row) for row in read_json(path)] if path.exists() else None

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The sources whose tokens the dictionary is trained on, the real one first."""
        return self.sources if self.recipe.dictionary.sources == "all" else (REAL,)

    def training_shards(self) -> list[Path]:
        """Their token shards."""
        from precompute.stages.encode import token_shards

        return [shard for name in self.trained_on for shard in token_shards(self.work.folder(f"encode/{name}"))]

    def images_of(self, name: str) -> Path:
        """Folder of the stage that provides a source's images."""
        return self.work.folder(source_stage(self.recipe, name))

    def pictures(self, name: str) -> list[Any]:
        """The images of a source."""
        from precompute.stages.manifest import read_manifest

        return read_manifest(self.images_of(name))

    def csr(self, name: str, kind: str) -> Any:
        """`codes` or `energy` of a source, `[rows, concepts]`."""
        from engine.atlas.storage import CSR

        return CSR.open(self.work.folder(f"energies/{name}") / kind, len(self.atoms)).rows()

    def live(self) -> np.ndarray:
        """The concepts that fire in any source, bool `[concepts]`."""
        from precompute.stages.energies import read_statistics

        fires = (read_statistics(self.work.folder(f"energies/{name}"))["fires"] for name in self.sources)
        return np.any([found > 0 for found in fires], axis=0)

    def embeddings(self, name: str) -> np.ndarray:
        """One unit vector per image of a source, float32 `[images, dim]`."""
        from precompute.stages.encode import EMBEDDINGS

        return np.load(self.work.folder(f"encode/{name}") / EMBEDDINGS)

    def partner(self, name: str) -> np.ndarray:
        """Per image of a source the position of its real one, or -1, int `[images]`; the identity for the real one."""
        if name == REAL:
            return np.arange(len(self.pictures(REAL)))
        return np.asarray(self._read_pairing(name)["partner"], np.int64)

    def _read_pairing(self, name: str) -> dict[str, Any]:
        return read_json(self.work.folder(f"pairing/{name}") / PAIRING)

    @property
    def tokens(self) -> int:
        """Tokens per image."""
        from precompute.stages.encode import read_spec

        return read_spec(self.work.folder(f"encode/{REAL}")).tokens

    @property
    def dictionary_folder(self) -> Path:
        """Where the finished dictionary is."""
        return self.work.folder("dictionary") / "dictionary"

    @cached_property
    def atoms(self) -> np.ndarray:
        """The dictionary's atoms, float32 `[concepts, dim]`."""
        from engine.dictionary.checkpoints import load_dictionary

        return load_dictionary(self.dictionary_folder).atoms().float().numpy()
