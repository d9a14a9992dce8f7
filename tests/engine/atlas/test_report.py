"""The dictionary's report in an atlas: read, optional, and checked."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.atlas import Atlas
from engine.atlas.schema import REPORT, REPORT_TABLE, table_file
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from tests.engine.atlas.test_verify import alter, reseal


def test_the_report_agrees_with_the_codes_it_was_measured_on(atlas):
    summary, concepts = atlas.dictionary_report()
    codes = atlas.codes("real").rows()
    fires = np.bincount(codes.indices, minlength=atlas.count)
    assert concepts["fires"].tolist() == fires.tolist()
    np.testing.assert_allclose(concepts["frequency"], fires / codes.shape[0])
    assert summary["l0"] == pytest.approx(codes.nnz / codes.shape[0]) and summary["tokens"] == codes.shape[0]
    assert concepts.index.name == "concept" and (concepts["nearest"] != concepts.index).all()


def test_an_atlas_without_a_report_opens_and_verifies(copy_path):
    for file in (REPORT, table_file(REPORT_TABLE)):
        (copy_path / file).unlink()
    reseal(copy_path)
    assert Atlas.open(copy_path).dictionary_report() is None and verify(copy_path) == []


def test_half_a_report_is_a_problem(copy_path):
    (copy_path / table_file(REPORT_TABLE)).unlink()
    reseal(copy_path)
    with pytest.raises(BlindspotError, match=r"report\.parquet is missing"):
        Atlas.open(copy_path).dictionary_report()
    assert [problem.file for problem in verify(copy_path)] == [REPORT]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l0_counts": [1]}, "its L0 histogram"),
        ({"r2": 0.5}, "its fvu is 0.2 where the table has 0.5"),
        ({"dead_share": 0.9}, "its dead_share is 0.9"),
        ({"stability": None}, "only one of the two files knows the stability"),
        ({"tokens": "many"}, "is damaged"),
        ({"hull": None}, "NoneType"),
    ],
)
def test_numbers_that_do_not_belong_together_are_found(copy_path, change, message):
    summary = json.loads((copy_path / REPORT).read_text())
    (copy_path / REPORT).write_text(json.dumps(summary | change))
    reseal(copy_path)
    assert any(problem.file == REPORT and message in problem.message for problem in verify(copy_path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"concept": 4}, "its concepts are not 0 to 95 in order"),
        ({"nearest": 96}, "a concept's nearest other does not exist"),
        ({"coherence": 1.5}, "coherence is not between 0 and 1"),
        ({"stability": -2.0}, "stability is not between -1 and 1"),
    ],
)
def test_columns_that_cannot_be_true_are_found(copy_path, columns, message):
    alter(copy_path, REPORT_TABLE, **columns)
    reseal(copy_path)
    file = table_file(REPORT_TABLE)
    assert any(problem.file == file and message in problem.message for problem in verify(copy_path))


def test_stability_may_be_missing(copy_path):
    file = copy_path / table_file(REPORT_TABLE)
    table = pq.read_table(file)
    at = table.schema.get_field_index("stability")
    missing = pa.nulls(table.num_rows, pa.float32())
    pq.write_table(table.set_column(at, "stability", missing), file)
    summary = json.loads((copy_path / REPORT).read_text())
    (copy_path / REPORT).write_text(json.dumps(summary | {"stability": None}))
    reseal(copy_path)
    assert verify(copy_path) == [] and Atlas.open(copy_path).dictionary_report().concepts["stability"].isna().all()
