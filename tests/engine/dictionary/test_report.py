"""The whole report of trained dictionaries: what it must say of known data, and that it goes into JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.evaluation import DictionaryReport, evaluate, report
from engine.dictionary.fitting import fit
from engine.dictionary.spec import DictionarySpec

SPEC = DictionarySpec(concepts=24, sparsity=3, epochs=4, batch=256, device="cpu")


@pytest.fixture(scope="module")
def tokens(planted: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
    return planted(4000, 24, 16, 2)[0]


@pytest.fixture(scope="module", params=["rasae", "topk"])
def found(request: pytest.FixtureRequest, tokens: Tensor) -> tuple[Dictionary, DictionaryReport]:
    dictionary, _ = fit(tokens, replace(SPEC, kind=request.param))
    return dictionary, report(dictionary, tokens, others=[dictionary.atoms().flip(0)], hull_points=64)


def test_it_agrees_with_the_evaluation_after_training(found: tuple[Dictionary, DictionaryReport], tokens: Tensor):
    dictionary, measured = found
    reached = evaluate(dictionary, tokens)
    assert (measured.usage.r2, measured.usage.l0) == pytest.approx((reached.r2, reached.l0), abs=1e-6)
    assert measured.usage.dead_share == pytest.approx(reached.dead_share, abs=1e-6)


def test_every_concept_has_every_number(found: tuple[Dictionary, DictionaryReport]):
    dictionary, measured = found
    per_concept = (
        measured.usage.fires, measured.coherence.value, measured.coherence.nearest, measured.hull.value,
        measured.stability.concept,
    )  # fmt: skip
    assert all(column.shape == (24,) and column.isfinite().all() for column in per_concept)
    assert measured.hull_own == (dictionary.kind == "archetypal")
    assert measured.hull_points == (24 if measured.hull_own else 64)


def test_the_same_atoms_in_another_order_are_stable(found: tuple[Dictionary, DictionaryReport]):
    assert found[1].stability.mean == pytest.approx(1, abs=1e-6)


def test_the_summary_is_json_with_numbers_that_belong_together(found: tuple[Dictionary, DictionaryReport]):
    summary = json.loads(json.dumps(found[1].summary(), allow_nan=False))
    assert summary["fvu"] == pytest.approx(1 - summary["r2"], abs=1e-5)
    assert sum(summary["l0_counts"]) == summary["tokens"] == 4000
    mean = sum(number * count for number, count in enumerate(summary["l0_counts"])) / 4000
    assert summary["l0"] == pytest.approx(mean, abs=1e-6)
    assert 0 <= summary["hull"]["uncertainty"] < 0.2 and summary["stability"]["pairs"][0][0] == 1


def test_shards_give_the_same_report_as_one_tensor(
    found: tuple[Dictionary, DictionaryReport], tokens: Tensor, tmp_path: Path
):
    dictionary, measured = found
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, part in zip(paths, tokens.split(2500), strict=True):
        np.save(path, part.numpy())
    again = report(dictionary, paths, hull_points=64)
    assert again.summary() == measured.summary() | {"stability": None}
    assert torch.equal(again.hull.value, measured.hull.value)
