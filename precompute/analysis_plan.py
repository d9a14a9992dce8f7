"""The stages of the analyses beyond delta: pairs of images, pairs of concepts, scalar metrics.

energies, pairing, encode -> divergence/M --------.
energies, pairing -> composition/real -> .../M ----+-> assemble
energies, pairing, encode -> metrics/S -----------'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.atlas.schema import REAL
from engine.blindspots.delta import ESTIMATORS
from precompute.plan import Progress, Stage

if TYPE_CHECKING:
    from precompute.stage_plan import StagePlan


def analysis_stages(plan: StagePlan) -> list[Stage]:
    """All of them, each after those it reads."""
    models = list(plan.recipe.models)
    return [
        *(_divergence(plan, name) for name in models),
        _real_composition(plan),
        *(_composition(plan, name) for name in models),
        *(_metrics(plan, name) for name in plan.sources),
    ]


def _divergence(plan: StagePlan, name: str) -> Stage:
    delta = plan.recipe.delta
    # Another estimator's temperature is in other units.
    temperature = delta.temperature if delta.estimator == "gap" else ESTIMATORS["gap"].temperature

    def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
        from precompute.stages.divergence import measure_pairs

        energies = plan.csr(REAL, "energy"), plan.csr(name, "energy")
        embeddings = plan.embeddings(REAL), plan.embeddings(name)
        return measure_pairs(energies, embeddings, plan.partner(name), plan.live(), temperature, folder)

    # All energies, because a concept that fires in any source counts.
    energies = (f"energies/{source}" for source in plan.sources)
    after = (*energies, f"pairing/{name}", f"encode/{REAL}", f"encode/{name}")
    return Stage(f"divergence/{name}", run, {"temperature": temperature}, after=after, unit="models")


def _real_composition(plan: StagePlan) -> Stage:
    def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
        from precompute.stages.composition import compose_real

        return compose_real(plan.csr(REAL, "codes"), plan.tokens, folder, progress)

    return Stage(f"composition/{REAL}", run, after=(f"energies/{REAL}", f"encode/{REAL}"), unit="parts")


def _composition(plan: StagePlan, name: str) -> Stage:
    def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
        from precompute.stages.composition import compose_model

        codes = plan.csr(REAL, "codes"), plan.csr(name, "codes")
        real = plan.work.folder(f"composition/{REAL}")
        return compose_model(name, codes, plan.tokens, plan.partner(name), real, folder, progress)

    after = (f"composition/{REAL}", f"energies/{REAL}", f"energies/{name}", f"pairing/{name}")
    return Stage(f"composition/{name}", run, after=after, unit="parts")


def _metrics(plan: StagePlan, name: str) -> Stage:
    def features(source: str) -> dict[str, Any]:
        return {"encoder": plan.embeddings(source), "concepts": plan.csr(source, "energy")}

    def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
        from precompute.stages.metrics import compare_halves, compare_model

        if name == REAL:
            return compare_halves(features(REAL), folder, progress)
        return compare_model(name, features(REAL), features(name), plan.partner(name), folder, progress)

    sources = dict.fromkeys((REAL, name))
    after = [f"{stage}/{source}" for source in sources for stage in ("energies", "encode")]
    after += [f"pairing/{name}"] if name != REAL else []
    return Stage(f"metrics/{name}", run, after=tuple(after), unit="spaces")
