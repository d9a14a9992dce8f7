import json
import shutil

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.atlas.storage import manifest
from engine.atlas.verify import Problem, verify


def reseal(path) -> None:
    """Write the checksums of what is there, so that only the content is wrong."""
    header = json.loads((path / "atlas.json").read_text())
    header["files"] = {rel: vars(entry) for rel, entry in manifest(path).items()}
    (path / "atlas.json").write_text(json.dumps(header))


def alter(path, name, **columns) -> None:
    """Set the first value of columns of a table."""
    file = path / f"{name}.parquet"
    table = pq.read_table(file)
    for column, value in columns.items():
        values = [value, *table[column].to_pylist()[1:]]
        at = table.schema.get_field_index(column)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    pq.write_table(table, file)


def alter_array(path, rel, at, value) -> None:
    array = np.load(path / rel)
    array[at] = value
    np.save(path / rel, array)


def test_a_whole_atlas_has_no_problem(atlas_path):
    assert verify(atlas_path) == []


def test_no_atlas_is_a_problem_and_not_an_error(tmp_path):
    (problem,) = verify(tmp_path)
    assert "is not an atlas" in str(problem)


def test_a_moved_bit_is_found(copy_path):
    file = copy_path / "energy/alpha/values.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert Problem("energy/alpha/values.npy", "has another content than was written (its SHA-256 differs)") in verify(
        copy_path
    )


def test_truncated_missing_and_foreign_files_are_found(copy_path):
    table = copy_path / "images.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    shutil.rmtree(copy_path / "codes/beta")
    (copy_path / "notes.txt").write_text("hello")
    found = {(problem.file, problem.message.split(" ")[0]) for problem in verify(copy_path)}
    assert {("images.parquet", "has"), ("codes/beta/indptr.npy", "is"), ("notes.txt", "is")} <= found
    assert any(problem.file == "images.parquet" and "is damaged" in problem.message for problem in verify(copy_path))
    assert any(problem.file == "codes/beta" and "is missing" in problem.message for problem in verify(copy_path))


def test_a_listed_path_outside_the_atlas_is_not_followed(copy_path):
    header = json.loads((copy_path / "atlas.json").read_text())
    header["files"]["../../etc/passwd"] = {"sha256": "", "bytes": 0, "rows": None}
    (copy_path / "atlas.json").write_text(json.dumps(header))
    assert verify(copy_path) == [Problem("atlas.json", "lists '../../etc/passwd', which lies outside the atlas")]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("concepts", {"concept": 5}, "its concepts are not 0 to 95 in order"),
        ("concepts", {"x": float("nan")}, "x is not finite everywhere"),
        ("images", {"image": 3}, "its images are not 0 to 71 in order"),
        ("images", {"source": "alpha"}, "not grouped by source"),
        ("images", {"pair": 1}, "two real images share a pair"),
        ("images", {"pair": -1}, "an image of 'alpha' is in a pair that has no real image"),
        ("energies", {"images": 7}, "its numbers of images are not the header's"),
        ("energies", {"sum": -1.0}, "an energy is negative"),
        ("energies", {"sum_sq": 1e-9}, "cannot belong together"),
        ("energies", {"images_active": 25}, "active in more images than there are"),
        ("energies", {"concept": 1}, "'real' does not have each concept once"),
        ("delta", {"model": "gamma"}, "'gamma' is no model of this atlas"),
        ("delta", {"p": 1.5}, "p is not between 0 and 1"),
        ("delta", {"ci_low": 1.0}, "a delta lies outside its interval"),
        ("delta", {"se": float("nan")}, "a standard error is negative or missing"),
        ("exemplars", {"image": 60}, "an exemplar of 'real' is no image of it"),
        ("exemplars", {"concept": 96}, "an exemplar's concept does not exist"),
        ("exemplars", {"score": 0.0}, "not sorted by falling score"),
        ("exemplars", {"rank": 7}, "the ranks of a list"),
        ("neighbours", {"kind": "friend"}, "'friend' is no kind of neighbour"),
        ("neighbours", {"other": -1}, "a concept or its neighbour does not exist"),
        ("neighbours", {"other": 0}, "a concept is its own neighbour"),
        ("labels", {"image": 72}, "a label's image does not exist"),
    ],
)
def test_tables_that_cannot_be_true_are_found(copy_path, name, columns, message):
    alter(copy_path, name, **columns)
    reseal(copy_path)
    problems = verify(copy_path)
    assert any(problem.file == f"{name}.parquet" and message in problem.message for problem in problems), problems


def test_a_column_of_another_type_is_found(copy_path):
    table = pq.read_table(copy_path / "concepts.parquet")
    pq.write_table(table.set_column(0, "concept", table["concept"].cast(pa.int64())), copy_path / "concepts.parquet")
    reseal(copy_path)
    assert [(problem.file, "concept:int64" in problem.message) for problem in verify(copy_path)] == [
        ("concepts.parquet", True)
    ]


@pytest.mark.parametrize(
    ("rel", "at", "value", "message"),
    [
        ("codes/alpha/indptr.npy", 0, 1, "its row pointers do not rise from 0"),
        ("codes/alpha/indptr.npy", 5, 10**6, "its row pointers do not rise from 0"),
        ("codes/alpha/indices.npy", 3, 96, "it names concept 96 of 96"),
        ("codes/alpha/values.npy", 3, -1, "a value is not a finite number above zero"),
        ("codes/alpha/values.npy", 3, np.inf, "a value is not a finite number above zero"),
        ("codes/alpha/values.npy", 3, 65504, "a code is the largest number of float16"),
        ("energy/alpha/indices.npy", 0, 95, "the concepts of a row do not rise"),
        ("energy/alpha/values.npy", 0, 1e6, "its energies do not add up"),
    ],
)
def test_matrices_out_of_order_are_found(copy_path, rel, at, value, message):
    alter_array(copy_path, rel, at, value)
    reseal(copy_path)
    problems = verify(copy_path)
    assert any(problem.file == rel.rsplit("/", 1)[0] and message in problem.message for problem in problems), problems


def test_values_of_another_type_and_missing_rows_are_found(copy_path):
    values, pointers = copy_path / "codes/real/values.npy", copy_path / "energy/real/indptr.npy"
    np.save(values, np.load(values).astype(np.float32))
    np.save(pointers, np.delete(np.load(pointers), 1))
    reseal(copy_path)
    messages = [str(problem) for problem in verify(copy_path)]
    assert "codes/real: its dtypes are int64, uint16, float32" in messages
    assert "energy/real: it has 23 rows instead of 24" in messages


def test_missing_and_foreign_thumbnails_are_counted(copy_path):
    for number in (3, 4):
        (copy_path / f"thumbs/0000/{number:07d}.webp").unlink()
    (copy_path / "thumbs/0000/0000007.webp").write_bytes(b"GIF89a")
    reseal(copy_path)
    assert verify(copy_path) == [
        Problem("thumbs/", "2 thumbnails are missing, the first is 0000003.webp"),
        Problem("thumbs/", "1 thumbnails are no webp pictures, the first is 0000007.webp"),
    ]


def test_an_index_of_another_size_is_found(copy_path):
    index = faiss.IndexFlatIP(4)
    index.add(np.ones((3, 4), np.float32))
    faiss.write_index(index, str(copy_path / "atoms.faiss"))
    (copy_path / "images.faiss").write_bytes(b"nonsense")
    reseal(copy_path)
    messages = {problem.file: problem.message for problem in verify(copy_path)}
    assert messages["atoms.faiss"] == "it holds 3 vectors instead of 96"
    assert "FAISS cannot read it" in messages["images.faiss"]


def test_unusable_delta_defaults_are_found(copy_path):
    header = json.loads((copy_path / "atlas.json").read_text())
    header["delta"] = {"estimator": "odds", "temperature": 0, "suppressed": 0.9, "exaggerated": 0.1}
    (copy_path / "atlas.json").write_text(json.dumps(header))
    assert len(verify(copy_path)) == 3
