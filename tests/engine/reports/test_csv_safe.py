"""No CSV file makes a spreadsheet run something; numbers stay numbers."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.files import FORMULA, spreadsheet_safe
from engine.reports.files import safe_table
from precompute.export import write_table


@given(st.text())
def test_no_text_begins_as_a_formula(text: str) -> None:
    safe = spreadsheet_safe(text)
    assert not safe.startswith(FORMULA) and safe in (text, f"'{text}")


def test_numbers_keep_their_type_and_digits() -> None:
    table = pd.DataFrame({"x": np.float32([-0.1, 2]), "n": [-1, 2], "label": ["=1+1", "cat"], "@": ["-", None]})
    safe = safe_table(table)
    assert safe["x"].dtype == np.float32 and safe["n"].tolist() == [-1, 2]
    assert safe["label"].tolist() == ["'=1+1", "cat"] and list(safe.columns) == ["x", "n", "label", "'@"]
    assert "-0.1" in safe.to_csv(index=False)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_exported_tables_are_safe(tmp_path, kind: pa.DataType) -> None:
    label = pa.array(["=HYPERLINK(1)", "+1", "cat"]).cast(kind)
    table = pa.table({"label": label, "words": [["-2", "a"], ["b"], None], "n": [-1.5, 0, 1]})
    path, _ = write_table(table, tmp_path / "t", "csv", {})
    found = pd.read_csv(io.StringIO(path.read_text()))
    assert found["label"].tolist() == ["'=HYPERLINK(1)", "'+1", "cat"] and found["n"].tolist() == [-1.5, 0, 1]
    assert found["words"].fillna("").tolist() == ["'-2; a", "b", ""]
