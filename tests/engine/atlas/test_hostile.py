"""An atlas from somebody else: links, pipes, damage and lies end in one sentence, never in a crash or a full memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from engine.atlas import Atlas
from engine.atlas.storage import CSR
from engine.atlas.verify import verify
from engine.atlas.writer import AtlasWriter
from engine.errors import BlindspotError
from engine.files import write_array
from engine.hub import ALLOW, agreed_model, remember_model
from tests.engine.atlas.test_verify import reseal

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/hostname"])
@pytest.mark.parametrize(
    ("rel", "use"),
    [
        ("thumbs/0000/0000000.webp", lambda atlas: atlas.thumb_bytes(0)),
        ("concepts.parquet", lambda atlas: atlas.concepts),
        ("images.faiss", lambda atlas: atlas.nearest_images(0)),
        ("codes/real/values.npy", lambda atlas: atlas.heatmap(0, 0)),
    ],
)
def test_no_link_is_followed(copy_path, rel, use, target):
    (copy_path / rel).unlink()
    (copy_path / rel).symlink_to(target)
    with pytest.raises(BlindspotError, match="symbolic link"):
        use(Atlas.open(copy_path))
    assert any(problem.file == rel and "symbolic link" in problem.message for problem in verify(copy_path))


def test_no_folder_behind_a_link_and_no_pipe_is_read(copy_path):
    (copy_path / "thumbs").rename(copy_path.parent / "elsewhere")
    (copy_path / "thumbs").symlink_to(copy_path.parent / "elsewhere")
    (copy_path / "labels.parquet").unlink()
    os.mkfifo(copy_path / "labels.parquet")
    with pytest.raises(BlindspotError, match="thumbs is a symbolic link"):
        Atlas.open(copy_path).image(0)
    with pytest.raises(BlindspotError, match="no regular file"):
        Atlas.open(copy_path).labels()
    files = {problem.file for problem in verify(copy_path)}
    assert {"thumbs", "labels.parquet"} <= files


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        ("indptr", np.array([0, 1 << 40, 0, 6]), "row pointers do not rise"),
        ("indptr", np.array([-5, 0, 3, 6]), "row pointers do not rise"),
        ("indptr", np.array([0, 2, 4, 6], np.float64), "dtypes"),
        ("indptr", np.array([[0, 2], [4, 6]]), "do not fit together"),
        ("indices", np.full(6, 9, np.uint16), "concept 9 of 5"),
        ("indices", np.full(6, 2**32 - 1, np.uint32), "concept 4294967295 of 5"),
        ("indices", np.zeros(6, np.int16), "dtypes"),
        ("values", np.full(6, np.nan, np.float16), "not a finite number"),
    ],
)
def test_a_matrix_is_checked_before_use(tmp_path, part, array, message):
    arrays = {"indptr": np.array([0, 2, 4, 6]), "indices": np.zeros(6, np.uint16), "values": np.ones(6, np.float16)}
    for name, whole in arrays.items():
        np.save(tmp_path / f"{name}.npy", array if name == part else whole)
    with pytest.raises(BlindspotError, match=message):
        CSR.open(tmp_path, 5).rows()
    with pytest.raises(BlindspotError, match=message):
        CSR.open(tmp_path, 5).column(0, 0, 3)


@pytest.mark.parametrize("kind", ["IVF1,Flat", "HNSW4", "SQ8", "L2"])
def test_only_a_flat_cosine_index_reaches_faiss(copy_path, kind):
    vectors = np.random.default_rng(0).standard_normal((72, 8), np.float32)
    index = faiss.IndexFlatL2(8) if kind == "L2" else faiss.index_factory(8, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(copy_path / "images.faiss"))
    with pytest.raises(BlindspotError, match="FAISS cannot read it"):
        Atlas.open(copy_path).nearest_images(0)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5},
        {"encoder": {"grid": [10**9, 10**9], "prefix_tokens": 1, "id": "x"}},
        {"encoder": {"grid": [float("inf"), 2], "prefix_tokens": 1}},
        {"encoder": {"grid": [2, 2], "prefix_tokens": 1, "id": ["x"]}},
        {"dictionary": {"concepts": 2**31 - 1}},
        {"dictionary": {"concepts": 10**400}},
        {"dictionary": {"concepts": "96"}},
        {"dictionary": {"concepts": 96, "r2": "high"}},
        {"delta": {"temperature": "warm"}},
        {"files": {"x": {"sha256": 5, "bytes": "many"}}},
        {"stages": []},
        {"prior": "x"},
    ],
)
def test_a_header_of_other_types_or_counts_is_one_sentence(copy_path, change):
    header = json.loads((copy_path / "atlas.json").read_text()) | change
    (copy_path / "atlas.json").write_text(json.dumps(header))
    with pytest.raises(BlindspotError):
        Atlas.open(copy_path)
    assert [problem.file for problem in verify(copy_path)] == ["atlas.json"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", '"\\ud800"', "\x00", ""])
def test_a_header_that_no_parser_reads_is_one_sentence(copy_path, text):
    (copy_path / "atlas.json").write_text(text)
    with pytest.raises(BlindspotError):
        Atlas.open(copy_path)


def test_weights_of_another_size_or_not_finite_are_found(copy_path):
    from safetensors.numpy import save_file

    (copy_path / "dictionary").mkdir(exist_ok=True)
    (copy_path / "dictionary/config.json").write_text('{"kind": "topk"}')
    save_file({"D": np.full((7, 4), np.nan, np.float32)}, copy_path / "dictionary/dictionary.safetensors")
    reseal(copy_path)
    messages = [str(problem) for problem in verify(copy_path)]
    assert any("not finite numbers" in message for message in messages)
    assert any("over 96 concepts" in message for message in messages)


def test_an_atlas_rebuilt_while_open_is_noticed(copy_path):
    atlas = Atlas.open(copy_path)
    assert len(atlas.concepts)
    reseal(copy_path)
    with pytest.raises(BlindspotError, match="rebuilt while it was open"):
        atlas.image(0)
    with pytest.raises(BlindspotError, match="rebuilt while it was open"):
        len(atlas.labels())


def test_a_writer_deletes_no_foreign_file(copy_path):
    (copy_path / "notes.txt").write_text("mine")
    with pytest.raises(BlindspotError, match=r"notes.txt is no part of an atlas"), AtlasWriter(copy_path):
        pass
    assert (copy_path / "notes.txt").read_text() == "mine"


def test_a_model_elsewhere_or_of_the_hub_needs_an_agreement(tmp_path, monkeypatch):
    atlas, beside, elsewhere = tmp_path / "a" / "atlas", tmp_path / "a" / "encoder", tmp_path / "b"
    for folder in (atlas, beside, elsewhere):
        folder.mkdir(parents=True)
    monkeypatch.delenv(ALLOW, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert agreed_model(beside, "../encoder", atlas) == beside
    with pytest.raises(BlindspotError, match="does not lie beside it"):
        agreed_model(elsewhere, str(elsewhere), atlas)
    with pytest.raises(BlindspotError, match="not on this machine"):
        agreed_model("nobody/no-such-model", "nobody/no-such-model", atlas)
    monkeypatch.setenv(ALLOW, "1")
    assert agreed_model(elsewhere, str(elsewhere), atlas) == elsewhere
    assert agreed_model("nobody/no-such-model", "nobody/no-such-model", atlas) == "nobody/no-such-model"
    monkeypatch.delenv(ALLOW)
    remember_model(elsewhere)
    assert agreed_model(elsewhere, str(elsewhere), atlas) == elsewhere


def test_a_full_disk_leaves_nothing_and_says_why(tmp_path):
    code = (
        "import resource, signal, sys, numpy as np\nfrom pathlib import Path\nfrom engine.files import *\n"
        "from engine.errors import BlindspotError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for write in (lambda p: write_array(p, np.ones(10**6)), lambda p: write_arrays(p, a=np.ones(10**6))):\n"
        "    try:\n        with full_disk_explained(Path(sys.argv[1])):\n            write(Path(sys.argv[1]) / 'x')\n"
        "    except BlindspotError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("The disk is full") == 2, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_written_as_numpy_writes_them(tmp_path):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    write_array(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


MUTATIONS = [("atlas", 80, 16), ("recipe", 140, 27), ("image", 340, 56), ("metadata", 160, 0)]


@pytest.fixture(scope="module")
def mutated(atlas_path, tmp_path_factory) -> tuple[dict, str]:
    """What every kind of damage came to, and what the processes said."""
    script = Path(__file__).with_name("mutations.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    counts = [f"{what}={count}" for what, count, _ in MUTATIONS]
    words = [sys.executable, str(script), str(atlas_path), str(tmp_path_factory.mktemp("mutated")), *counts]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "count", "least"), MUTATIONS)
def test_mutations_end_in_a_result_or_one_sentence(mutated, what, count, least):
    """Damaged atlases, recipes, images and captions, in processes that may take 1 GB more than they start with."""
    found = mutated[0][what]
    assert found["status"] == 0, mutated[1]
    assert found["tried"] == count and found["wrong"] == [] and found["mebibytes"] < 1024
    assert found["sentences"] >= least
