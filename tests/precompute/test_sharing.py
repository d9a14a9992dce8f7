"""Atlases that are published and fetched: by a folder, a bucket in memory, and a web server with every fault."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.atlas.reader import Atlas
from engine.atlas.schema import HEADER
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.files import file_hash
from precompute.cli import app
from precompute.sharing.commands import name_of
from precompute.sharing.transfer import LIST, fetch, local_models, publish
from tests.synthetic import build_synthetic_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    return build_synthetic_atlas(tmp_path_factory.mktemp("own") / "atlas", concepts=24, pairs=6)


@pytest.fixture(scope="module")
def published(atlas, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "atlas"
    publish(atlas, str(folder))
    return folder


class Faulty(SimpleHTTPRequestHandler):
    """Serves a folder, counts what is asked, and fails as its server says."""

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        fault = self.server.faults.get(name)
        content = Path(self.directory, name).read_bytes() if Path(self.directory, name).is_file() else b""
        if fault == "breaks off once":
            fault = "breaks off" if self.server.asked[name] == 1 else None
        if fault == "breaks off":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        elif fault in ("longer", "other"):
            changed = content + b"more" if fault == "longer" else bytes([content[0] ^ 1]) + content[1:]
            self.send_response(200)
            self.send_header("Content-Length", str(len(changed)))
            self.end_headers()
            self.wfile.write(changed)
        elif fault:
            self.send_error(int(fault))
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server(published) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Faulty, directory=str(published))) as made:
        made.asked, made.faults, made.root = Counter(), {}, f"http://127.0.0.1:{made.server_port}"
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["folder", "memory://bucket/atlas"])
def test_an_atlas_arrives_byte_for_byte(atlas, tmp_path, where):
    place = str(tmp_path / "there") if where == "folder" else where
    publish(atlas, place)
    publish(atlas, place)  # again: what lies there is replaced
    assert hashes(fetch(place, tmp_path / "here")) == hashes(atlas)
    assert fetch(place, tmp_path / "here") == tmp_path / "here"  # is there already
    with pytest.raises(BlindspotError, match="exists and is not that atlas"):
        fetch(place, tmp_path)


def test_pictures_travel_in_archives_and_a_page_says_how_to_open_it(atlas, published):
    assert (published / "thumbs/0000.zip").is_file() and not (published / "thumbs/0000").exists()
    assert f"blindspot-atlas app {published}" in (published / "README.md").read_text()
    assert Atlas.open(atlas).info.name in (published / "README.md").read_text()


def test_what_broke_off_is_brought_on_and_nothing_twice(atlas, server, tmp_path):
    server.faults = {"energies.parquet": "breaks off"}
    with pytest.raises(BlindspotError, match=r"energies.parquet does not arrive .*; run the same command to go on"):
        fetch(server.root, tmp_path / "here")
    assert not (tmp_path / "here").exists() and server.asked["energies.parquet"] == 3
    before = server.asked.copy()
    server.faults = {"images.parquet": "breaks off once"}
    assert hashes(fetch(server.root, tmp_path / "here")) == hashes(atlas)
    again = {name for name in before if before[name] and server.asked[name] > before[name]}
    assert again <= {LIST, "energies.parquet"} and not (tmp_path / "here.part").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("longer", "larger than its list says"), ("other", "not what its list says"), ("404", "is missing"),
     ("500", "does not arrive .*HTTP 500")],
)  # fmt: skip
def test_a_file_that_is_not_as_listed_is_one_sentence(server, tmp_path, fault, words):
    server.faults = {"concepts.parquet": fault}
    with pytest.raises(BlindspotError, match=f"concepts.parquet.*{words}"):
        fetch(server.root, tmp_path / "here")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "C:\\escaped", ""])
@pytest.mark.parametrize("key", ["name", "folder"])
def test_a_list_names_nothing_outside(published, tmp_path, name, key):
    place = shutil.copytree(published, tmp_path / "place")
    document = json.loads((place / LIST).read_text())
    if key == "folder" and not name:
        return  # is no archive
    document["files"][0][key] = name
    (place / LIST).write_text(json.dumps(document))
    with pytest.raises(BlindspotError, match="is damaged"):
        fetch(str(place), tmp_path / "here")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("trick", ["outside", "packed", "overlap"])
def test_an_archive_gives_pictures_of_its_own_size_alone(published, tmp_path, trick):
    place = shutil.copytree(published, tmp_path / "place")
    archive, document = place / "thumbs/0000.zip", json.loads((place / LIST).read_text())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if trick == "packed" else zipfile.ZIP_STORED) as made:
        made.writestr("../../escaped.webp" if trick == "outside" else "0000000.webp", b"0" * 10_000)
        if trick == "overlap":
            made.filelist = made.filelist * 50
    one = next(one for one in document["files"] if one["name"] == "thumbs/0000.zip")
    one |= {"bytes": archive.stat().st_size, "sha256": file_hash(archive)}
    (place / LIST).write_text(json.dumps(document))
    with pytest.raises(BlindspotError, match="is no archive of pictures"):
        fetch(str(place), tmp_path / "here")
    assert not [*tmp_path.rglob("escaped*")] and not (tmp_path / "here").exists()


def test_what_is_no_published_atlas_is_one_sentence(atlas, tmp_path):
    for where, words in {
        "https://127.0.0.1:9/atlas": "cannot be reached", str(tmp_path): "no published atlas", "hf://one": "hf://OWNER/NAME",
        "gopher://x/y": "cannot be used", "http:///": "no web address",
    }.items():  # fmt: skip
        with pytest.raises(BlindspotError, match=words):
            fetch(where, tmp_path / "here")
    broken = shutil.copytree(atlas, tmp_path / "broken")
    (broken / "concepts.parquet").write_bytes(b"0")
    with pytest.raises(BlindspotError, match="is not whole, so it is not published"):
        publish(broken, str(tmp_path / "there"))
    with pytest.raises(BlindspotError, match="can only be read"):
        publish(atlas, "https://127.0.0.1:9/atlas")
    assert not (tmp_path / "there").exists()


def test_models_in_folders_are_named_as_left_out(atlas, tmp_path):
    copy = shutil.copytree(atlas, tmp_path / "atlas")
    header = json.loads((copy / HEADER).read_text())
    header["prior"] = {"kind": "latent", "id": "../prior"}
    header["encoder"]["id"] = "facebook/dinov2-base"
    (copy / HEADER).write_text(json.dumps(header))
    assert local_models(copy) == ["../prior"]


def test_the_commands_say_what_they_did(atlas, tmp_path):
    place = tmp_path / "there"
    said = CliRunner().invoke(app, ["publish", str(atlas), str(place)])
    assert said.exit_code == 0 and f"blindspot-atlas app {place}" in said.output.replace("\n", "")
    said = CliRunner().invoke(app, ["fetch", str(place), "--out", str(tmp_path / "here"), "--json"])
    assert json.loads(said.stdout)["atlas"] == str(tmp_path / "here") and verify(tmp_path / "here") == []
    assert name_of("https://x.org/a/my%20atlas/?v=1") == "my_20atlas" and name_of("hf://me/tabletop@v2") == "tabletop"
