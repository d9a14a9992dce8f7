import math
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.atlas import AtlasInfo, AtlasWriter, Source
from engine.atlas.schema import TABLES
from engine.errors import BlindspotError
from tests.synthetic import build_synthetic_atlas

LABELS = pd.DataFrame({"attribute": ["kind"], "value": ["ring"], "image": [0], "extra": [1.5]})


def header(name: str = "small") -> AtlasInfo:
    return AtlasInfo(name, {"grid": [2, 2], "prefix_tokens": 1}, {"concepts": 3}, (Source("real", "real", "Real", 1),))


def write(path: Path, name: str = "small") -> None:
    with AtlasWriter(path) as writer:
        writer.write_table("labels", LABELS)
        writer.finish(header(name))


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_same_content_has_the_same_bytes(tmp_path):
    first, second = (build_synthetic_atlas(tmp_path / name, 24, 3, ("alpha",)) for name in ("one", "two"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / rel).read_bytes() == (second / rel).read_bytes() for rel in files)


def test_a_finished_atlas_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    write(tmp_path / "atlas", "old")
    write(tmp_path / "atlas", "new")
    assert '"new"' in (tmp_path / "atlas" / "atlas.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_an_exception_keeps_the_old_atlas_and_nothing_of_the_new(tmp_path):
    write(tmp_path / "atlas", "old")
    with pytest.raises(ZeroDivisionError), AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_table("labels", LABELS)
        raise ZeroDivisionError
    assert '"old"' in (tmp_path / "atlas" / "atlas.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_leaving_without_finish_writes_nothing(tmp_path):
    with AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_table("labels", LABELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write_one", ["table", "array", "file", "header"])
def test_a_full_disk_is_one_sentence_and_nothing_stays(tmp_path, write_one):
    """/dev/full answers every write with the error of a full disk."""
    names = {"table": "labels.parquet", "array": "a.npy", "file": "b.bin", "header": "atlas.json"}
    with pytest.raises(BlindspotError, match=r"Disk full while writing .*free some space"):  # noqa: SIM117
        with AtlasWriter(tmp_path / "atlas") as writer:
            os.symlink("/dev/full", writer.folder / names[write_one])
            if write_one == "table":
                writer.write_table("labels", LABELS)
            elif write_one == "array":
                writer.write_array("a.npy", np.zeros(100_000))
            elif write_one == "file":
                writer.add_file("b.bin", b"x" * 100_000)
            else:
                (writer.folder / "atlas.json").unlink()
                os.symlink("/dev/full", writer.folder / "atlas.json")
                writer.finish(header())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_in_the_callers_hands_is_the_same_sentence(tmp_path):
    with pytest.raises(BlindspotError, match="Disk full"), AtlasWriter(tmp_path / "atlas"):
        Path("/dev/full").write_text("x")


def test_a_folder_that_is_no_atlas_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"precious")
    with pytest.raises(BlindspotError, match="exists and is not an atlas"):
        write(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"precious"


def test_an_empty_folder_may_become_an_atlas(tmp_path):
    (tmp_path / "atlas").mkdir()
    write(tmp_path / "atlas")
    assert (tmp_path / "atlas" / "atlas.json").is_file()


def test_a_file_where_a_folder_must_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BlindspotError, match="cannot be written"):
        write(tmp_path / "file" / "atlas")


def test_what_a_killed_writer_left_is_removed_or_brought_back(tmp_path):
    write(tmp_path / "atlas", "old")
    pid = dead_pid()
    (tmp_path / "atlas").rename(tmp_path / f".atlas.old-{pid}")
    (tmp_path / f".atlas.partial-{pid}").mkdir()
    with AtlasWriter(tmp_path / "atlas"):
        assert '"old"' in (tmp_path / "atlas" / "atlas.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


def test_a_writer_that_still_runs_is_left_alone(tmp_path):
    busy = tmp_path / f".atlas.partial-{os.getppid()}"
    busy.mkdir()
    write(tmp_path / "atlas")
    assert busy.is_dir()


def test_tables_are_cast_to_the_schema_and_extra_columns_dropped(tmp_path):
    with AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_table("labels", LABELS)
        assert pq.read_schema(writer.folder / "labels.parquet").equals(TABLES["labels"], check_metadata=True)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("labels", LABELS.drop(columns="value"), "'labels' of the atlas lacks the column 'value'"),
        ("labels", LABELS.assign(image="first"), "'labels' of the atlas does not fit its schema"),
        ("notes", LABELS, "An atlas has no table 'notes'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, name, table, message):
    with pytest.raises(BlindspotError, match=message), AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_table(name, table)


def test_arrays_of_any_shape_come_back(tmp_path):
    arrays = [np.arange(6).reshape(2, 3).T, np.zeros(0, np.float16), np.ones((2, 0, 3))]
    with AtlasWriter(tmp_path / "atlas") as writer:
        for number, array in enumerate(arrays):
            writer.write_array(f"deep/{number}.npy", array)
            back = np.load(writer.folder / f"deep/{number}.npy", allow_pickle=False)
            np.testing.assert_array_equal(back, array)
            assert back.dtype == array.dtype


def test_objects_are_never_written(tmp_path):
    with pytest.raises(BlindspotError, match="holds Python objects"), AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_array("a.npy", np.array([{}]))
    with pytest.raises(BlindspotError, match=r"'b' of a\.npz"), AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_arrays("a.npz", {"a": np.ones(2), "b": np.array([{}])})


def test_named_arrays_come_back_and_always_have_the_same_bytes(tmp_path):
    arrays, content = {"eps": np.arange(3.0), "real/l0": np.ones((2, 0), np.int64)}, set()
    for name in ("one", "two"):
        with AtlasWriter(tmp_path / name) as writer:
            writer.write_arrays("a.npz", arrays)
            content.add((writer.folder / "a.npz").read_bytes())
            with np.load(writer.folder / "a.npz", allow_pickle=False) as stored:
                assert {key: stored[key].tolist() for key in stored} == {key: a.tolist() for key, a in arrays.items()}
    assert len(content) == 1


@pytest.mark.parametrize(
    ("indices", "dtype"),
    [(np.array([0, 65_534]), np.uint16), (np.array([0, 65_535]), np.uint32), (np.array([0, 1], np.uint32), np.uint32)],
)
def test_indices_are_stored_as_small_as_they_fit(tmp_path, indices, dtype):
    with AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_csr("codes/real", np.array([0, 2]), indices, np.ones(2))
        assert np.load(writer.folder / "codes/real/indices.npy").dtype == dtype
        assert np.load(writer.folder / "codes/real/values.npy").dtype == np.float16


@pytest.mark.parametrize("rel", ["../outside.bin", "/tmp/outside.bin", "a/../../b"])
def test_nothing_is_written_outside_the_atlas(tmp_path, rel):
    with pytest.raises(BlindspotError, match="would lie outside"), AtlasWriter(tmp_path / "atlas") as writer:
        writer.add_file(rel, b"x")


def test_thumbnails_are_small_webp_pictures(tmp_path):
    with AtlasWriter(tmp_path / "atlas") as writer:
        writer.write_thumb(1234, Image.new("RGBA", (600, 300), "#ff000080"), size=100)
        with Image.open(writer.folder / "thumbs/0001/0001234.webp") as thumb:
            assert (thumb.format, thumb.mode, thumb.size) == ("WEBP", "RGB", (100, 50))


@given(st.lists(st.sampled_from([0.5, -1.0, math.nan, math.inf, -math.inf, None]), max_size=6), st.booleans())
def test_numbers_that_are_not_finite_become_null_in_tables(values, arrow):
    table = pd.DataFrame({"concept": range(len(values)), "fires": 1, "energy": pd.array(values, "object")})
    with tempfile.TemporaryDirectory() as folder, AtlasWriter(f"{folder}/atlas") as writer:
        found = pa.table({**table, "energy": pa.array(values, pa.float64())}) if arrow else table
        writer.write_table("published", found)
        stored = pq.read_table(writer.folder / "published.parquet")["energy"].to_pylist()
    assert stored == [value if value is not None and math.isfinite(value) else None for value in values]
