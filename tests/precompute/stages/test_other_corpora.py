"""Tables of addresses against a real server that misbehaves in every way, and data sets that `datasets` reads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.errors import BlindspotError
from precompute.corpora.collections import gather_dataset
from precompute.corpora.fetching import FetchLimits, NotFetched, fetch, is_public
from precompute.corpora.urls import gather_urls
from precompute.recipe import Dataset, Limits, Urls, load_recipe
from precompute.stages.corpus import read_manifest, read_skipped
from tests.precompute.materials import save_images

ALLOWED = ("127.0.0.1/32",)


def quiet(done: int, total: int) -> None:
    return None


def picture(number: int, side: int = 40) -> bytes:
    made = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(made, "JPEG")
    return made.getvalue()


def bomb() -> bytes:
    made = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(made, "PNG")
    return made.getvalue()


class Misbehaving(BaseHTTPRequestHandler):
    """Answers by the path; remembers what it was asked."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = self.path.strip("/").partition("?")[0]
        self.server.asked[self.command, name] += 1
        content, status, headers = picture(1), 200, {"Content-Type": "image/jpeg"}
        match name.partition("-")[0]:
            case "good":
                content = picture(int(name.partition("-")[2]) + 10)
            case "missing":
                content, status = b"", 404
            case "html.jpg":
                content, headers = b"<html>not here</html>", {"Content-Type": "text/html"}
            case "lie.jpg":
                content = b"<html>not here</html>"
            case "moved":
                content, status, headers = b"", 302, {"Location": "/good-3"}
            case "inner":
                content, status, headers = b"", 302, {"Location": "http://10.0.0.1/secret.jpg"}
            case "loop":
                content, status, headers = b"", 302, {"Location": "/loop"}
            case "file":
                content, status, headers = b"", 302, {"Location": "file:///etc/passwd"}
            case "huge":
                headers["Content-Length"] = "50000000"
            case "endless":
                self.send_response(200)
                self.send_header("Content-Type", "image/jpeg")
                self.end_headers()
                while body:
                    self.wfile.write(bytes(1 << 16))
                return
            case "bomb":
                content = self.server.bomb
            case "truncated":
                headers["Content-Length"] = str(len(content))
                content = content[:200]
            case "drip" | "headers":
                self.send_response(200)
                self.send_header("Content-Type", "image/jpeg")
                self.flush_headers()
                if name == "drip":
                    self.end_headers()
                for _ in range(200 if body or name == "headers" else 0):
                    self.wfile.write(b"X: y\r\n" if name == "headers" else b"\xff")
                    self.wfile.flush()
                    time.sleep(0.05)
                return
            case "post":
                status = 405 if self.command == "HEAD" else 200
                content = picture(77)
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, *words: object) -> None:
        return None


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    made.daemon_threads = True
    made.asked, made.bomb = Counter(), bomb()
    made.root = f"http://127.0.0.1:{made.server_address[1]}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


BAD = {
    "missing": "HTTP 404", "html.jpg": "not an image", "lie.jpg": "damaged", "inner": "not a public address",
    "loop": "too many redirects", "file": "no web address", "huge": "too large", "endless": "too large",
    "bomb": "too many pixels", "truncated": "truncated", "drip": "too slow", "headers": "too slow",
}  # fmt: skip
NEVER = {"flagged": "flagged as unsafe", "bare": "no caption"}


@pytest.fixture
def table(server: ThreadingHTTPServer, tmp_path: Path) -> Path:
    good = [f"good-{number}" for number in range(6)] + ["good-2?again", "moved", "post"]
    names = [*good, *BAD, *NEVER]
    pd.DataFrame(
        {
            "URL": [f"{server.root}/{name}" for name in names]
            + ["http://192.168.0.1/a.jpg", "ftp://x.org/a.jpg", None],
            "TEXT": [None if name == "bare" else f"a picture {name}" for name in names] + ["a"] * 3,
            "NSFW": ["NSFW" if name == "flagged" else "UNLIKELY" for name in names] + ["UNLIKELY"] * 3,
            "LICENSE": ["CC0"] * (len(names) + 3),
        }
    ).to_parquet(tmp_path / "laion.parquet")
    return tmp_path / "laion.parquet"


def urls_of(table: Path, **fields: object) -> Urls:
    return Urls(urls=table, max_bytes=300_000, timeout=2, allow_networks=ALLOWED, **fields)


def test_a_table_gives_every_valid_pair_and_a_reason_for_every_other_row(server, table, tmp_path: Path):
    server.asked.clear()
    summary = gather_urls(urls_of(table), Limits(), tmp_path / "work", quiet)
    images, skipped = read_manifest(tmp_path / "work"), read_skipped(tmp_path / "work")
    # Six, and one behind a server without HEAD; /moved and ?again are copies of two of them, whichever comes first.
    assert summary["images"] == len(images) == 7 and len({image.sha256 for image in images}) == 7
    assert all(image.licence == "CC0" and image.url and image.caption for image in images)
    assert all(hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256 for image in images)
    reasons = {one.file.removeprefix(server.root).strip("/"): one.kind for one in skipped}
    assert {name: reasons[name] for name in BAD} == BAD and {name: reasons[name] for name in NEVER} == NEVER
    assert reasons["http://192.168.0.1/a.jpg"] == "not a public address"
    assert (
        reasons["ftp://x.org/a.jpg"] == "no web address" and sum(kind == "duplicate" for kind in reasons.values()) == 2
    )
    assert len(images) + len(skipped) == len(pd.read_parquet(table)) == summary["sampled_from"]
    asked = {name for _, name in server.asked}
    assert not asked & {*NEVER, "secret.jpg"}
    assert not any(("GET", name) in server.asked for name in ("missing", "html.jpg", "inner", "huge", "file"))
    server.asked.clear()
    gather_urls(urls_of(table), Limits(), tmp_path / "work", quiet)
    assert not server.asked  # what is known is not asked again


def test_a_seeded_sample_has_as_many_pairs_as_are_wanted(server, table, tmp_path: Path):
    pd.read_parquet(table).iloc[:12].to_csv(tmp_path / "some.csv", index=False)
    taken, table = [], tmp_path / "some.csv"
    for number, seed in enumerate((1, 1, 2)):
        found = gather_urls(urls_of(table), Limits(images=4, seed=seed), tmp_path / str(number), quiet)
        images = read_manifest(tmp_path / str(number))
        assert found["images"] == len(images) == len(list((tmp_path / str(number) / "images").iterdir())) == 4
        taken.append([image.url for image in images])
    assert taken[0] == taken[1] != taken[2]


def test_inner_networks_are_refused_by_default(server):
    with pytest.raises(NotFetched, match="not a public address"):
        fetch(f"{server.root}/good-1", FetchLimits())
    with pytest.raises(NotFetched, match="not a public address"):
        fetch(f"http://localhost:{server.server_address[1]}/good-1", FetchLimits())
    inner = "127.0.0.1 10.1.2.3 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1"
    inner += " ::1 fe80::1 fd00::1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"
    assert not any(is_public(ip_address(text)) for text in inner.split())
    assert is_public(ip_address("93.184.216.34")) and is_public(ip_address("2606:2800:220:1:248:1893:25c8:1946"))


@pytest.mark.parametrize("kind", ["folder", "archive", "parquet", "tar"])
def test_data_sets_give_images_with_captions_and_leave_out_copies(tmp_path: Path, kind: str):
    pytest.importorskip("datasets")
    images = save_images(tmp_path / "images", range(5))
    (images / "broken.png").write_bytes((images / "0000.png").read_bytes()[:90])
    rows = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
    rows += [{"file_name": "broken.png", "text": "broken"}]
    where = images
    (images / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if kind == "archive":
        where = tmp_path / "packed"
        where.mkdir()
        with zipfile.ZipFile(where / "images.zip", "w") as archive:
            for file in images.iterdir():
                archive.write(file, file.name)
    elif kind == "parquet":
        where = tmp_path / "rows.parquet"
        rows += [rows[0]]
        content = [{"bytes": (images / row["file_name"]).read_bytes(), "path": row["file_name"]} for row in rows]
        features = {"info": {"features": {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}}}
        frame = pd.DataFrame({"image": content, "text": [row["text"] for row in rows]})
        pq.write_table(
            pa.Table.from_pandas(frame).replace_schema_metadata({"huggingface": json.dumps(features)}), where
        )
    elif kind == "tar":
        where = tmp_path / "shard-*.tar"
        with tarfile.open(tmp_path / "shard-0.tar", "w") as shard:
            for row in rows:
                stem = row["file_name"].removesuffix(".png")
                for name, content in ((f"{stem}.png", (images / row["file_name"]).read_bytes()),
                                      (f"{stem}.txt", row["text"].encode())):  # fmt: skip
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
    (tmp_path / "work").mkdir()
    found = gather_dataset(Dataset(dataset=str(where)), Limits(), tmp_path / "work", quiet)
    kept, kinds = read_manifest(tmp_path / "work"), Counter(one.kind for one in read_skipped(tmp_path / "work"))
    assert found["images"] == 5 and kinds == {"damaged": 1} | ({"duplicate": 1} if kind == "parquet" else {})
    assert {image.caption for image in kept} == {row["text"] for row in rows[:5]}
    (tmp_path / "some").mkdir()
    assert (
        gather_dataset(Dataset(dataset=str(where)), Limits(images=2, seed=3), tmp_path / "some", quiet)["images"] == 2
    )


@pytest.mark.parametrize("where", ["beside", "relative", "archive"])
def test_a_row_reads_no_file_outside_its_data_set(tmp_path: Path, monkeypatch, where: str):
    pytest.importorskip("datasets")
    save_images(tmp_path / "private", range(2))
    with zipfile.ZipFile(tmp_path / "private.zip", "w") as archive:
        archive.write(tmp_path / "private" / "0000.png", "0.png")
    monkeypatch.chdir(tmp_path)
    named = {
        "beside": str(tmp_path / "data" / ".." / "private" / "0000.png"),
        "relative": "private/0000.png",
        "archive": f"zip://0.png::{tmp_path}/private.zip",
    }
    (tmp_path / "data").mkdir()
    whole = (tmp_path / "private" / "0001.png").read_bytes()
    rows = [{"bytes": whole, "path": None}, {"bytes": None, "path": named[where]}]
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    table = pa.table({"image": rows}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "data" / "rows.parquet")
    (tmp_path / "work").mkdir()
    gather_dataset(Dataset(dataset=str(tmp_path / "data")), Limits(), tmp_path / "work", quiet)
    assert len(read_manifest(tmp_path / "work")) == 1
    assert [one.kind for one in read_skipped(tmp_path / "work")] == ["missing"]


def test_what_is_no_data_set_is_one_sentence(tmp_path: Path):
    pytest.importorskip("datasets")
    for where, words in ((tmp_path / "nowhere", "There is no data set"), (tmp_path, "cannot be read|gave no image")):
        with pytest.raises(BlindspotError, match=words):
            gather_dataset(Dataset(dataset=str(where)), Limits(), tmp_path, quiet)


def test_recipes_name_them_and_addresses_are_no_folders(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    base = "models: {m: x}\nencoder: {id: a/b}\n"
    recipe.write_text("real: {urls: laion.parquet, allow_networks: [127.0.0.1/32]}\n" + base)
    assert load_recipe(recipe).real.urls == tmp_path / "laion.parquet"
    recipe.write_text("real: {dataset: owner/name, split: test}\n" + base)
    assert load_recipe(recipe).real.dataset == "owner/name"
    for text, words in (
        ("real: https://huggingface.co/datasets/owner/name\n" + base, "is an address .* give the id owner/name"),
        (
            "real: x\nmodels: {m: x}\nencoder: {id: 'https://huggingface.co/facebook/dinov2-base'}",
            "id facebook/dinov2-base",
        ),
        ("real: x\nmodels: {m: x}\nencoder: {id: 'hf-hub:timm/x'}", "is an address and no folder or id"),
        ("real: {urls: x, allow_networks: [what]}\n" + base, "'what', which is no network"),
    ):
        recipe.write_text(text)
        with pytest.raises(BlindspotError, match=words):
            load_recipe(recipe)
