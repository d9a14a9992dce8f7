"""The app under attack, as a real server and a real browser see it: who is listened to and asked, and what runs."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.atlas import Atlas
from engine.atlas.schema import TABLES
from engine.errors import BlindspotError
from tests.app.conftest import THIS_MACHINE, looked_for, watching
from tests.app.serving import ROOT, foreign, point, serving, settled, visit, wait_for_map
from tests.app.test_accessibility import violations
from tests.app.test_browser import WAIT, topmost

pytestmark = pytest.mark.browser
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py") if path.stem not in ("__init__", "routes", "shell"))
DRAWN = "h1, h2, .st-key-map .ba-plot"
EVIL = (
    '<img src=x onerror="window.evil=1"><a href="javascript:window.evil=1">a</a></script><script>window.evil=1</script>'
)
STRUCTURE = ("format", "name", "files", "stages", "estimator")
"""Entries of a header that cannot be any text; the name of the atlas itself is set below."""


def listening(port: int) -> set[str]:
    """The addresses on which somebody listens on a port, from the kernel's tables."""
    found = set()
    for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            number, at = local.split(":")
            if state == "0A" and int(at, 16) == port:
                words = bytes.fromhex(number)
                swapped = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                found.add(socket.inet_ntop(kind, swapped))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="the kernel says who listens on Linux alone")
def test_the_app_listens_on_this_machine_alone(watched):
    assert listening(urlsplit(watched[0]).port) == {"127.0.0.1"}


def leaves(block: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all strings in a JSON document."""
    entries = block.items() if isinstance(block, dict) else enumerate(block) if isinstance(block, list) else ()
    for name, value in entries:
        if name in STRUCTURE:
            continue
        if isinstance(value, str) or value is None:
            yield (*path, name)
        yield from leaves(value, (*path, name))


def poison(path: Path) -> int:
    """Put markup into every text of an atlas that it opens with; return how many of the header took it."""
    header = json.loads((path / "atlas.json").read_text())
    header["left_out"] = {source["name"]: {EVIL: 3} for source in header["sources"]}
    header["dictionary"] |= {"kind": "", "trained_on": ""}
    header["name"], taken = EVIL, 0
    for *parents, name in list(leaves(header)):
        block = header
        for parent in parents:
            block = block[parent]
        before, block[name] = block[name], EVIL
        (path / "atlas.json").write_text(json.dumps(header))
        try:
            Atlas.open(path)
            taken += 1
        except BlindspotError:
            block[name] = before
    (path / "atlas.json").write_text(json.dumps(header))
    for name, columns in {"concepts": ("label", "words"), "images": ("caption", "file")}.items():
        table = pq.read_table(path / f"{name}.parquet")
        for column in columns:
            kind = table.schema.field(column).type
            value = [EVIL] if pa.types.is_list(kind) else EVIL
            at = table.schema.get_field_index(column)
            table = table.set_column(at, table.schema.field(column), pa.array([value] * len(table), kind))
        pq.write_table(table, path / f"{name}.parquet")
    row = {"concept": 5, "label": EVIL, "origin": EVIL, "description": EVIL}
    pq.write_table(pa.Table.from_pylist([row], TABLES["concept_labels"]), path / "concept_labels.parquet")
    return taken


def ran(page) -> bool:
    page.wait_for_timeout(300)
    assert page.locator("img[src='x'], [onerror], a[href^='javascript']").count() == 0
    return page.evaluate("() => window.evil !== undefined")


def test_pages_are_accessible_run_no_text_of_an_atlas_and_ask_no_other_host(
    analysed_atlas, drawable_atlas, browser, tmp_path
):
    path = Path(shutil.copytree(analysed_atlas, tmp_path / "atlas"))
    header, drawable = (json.loads((place / "atlas.json").read_text()) for place in (path, drawable_atlas))
    (path / "atlas.json").write_text(json.dumps(header | {"prior": drawable["prior"]}))
    assert poison(path) >= 15
    with watching(path, tmp_path) as (address, hosts):
        context, asked = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True), []
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        query = urlencode(
            {"concept": 5, "image": 3, "text": EVIL[:80], "job": EVIL, "model": EVIL, "reference": "alpha"}
        )
        for place in (*PAGES, *(f"{name}?{query}" for name in ("concept_map", "pairs", "compare"))):
            visit(page, f"{address}/{'' if place == 'overview' else place}")
            page.wait_for_selector(DRAWN, timeout=WAIT)
            settled(page)
            assert not ran(page), place
            assert page.locator("text=This part of the page ended").count() == 0, place
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 1440, place
            assert violations(page) == [], place
            if place.startswith("concept_map?"):
                wait_for_map(page)
                page.evaluate("document.querySelector('.st-key-map').scrollIntoView()")
                page.mouse.move(*point(page, topmost(page)))
                page.wait_for_selector(".st-key-map .ba-tip:not([hidden])", timeout=WAIT)
                assert "<img src=x" in page.locator(".st-key-map .ba-tip").inner_text() and not ran(page)
        report = context.request.get(f"{address}/atlas/v/exhibit/delta-ranking.html")
        assert report.status == 200 and "attachment" in report.headers["content-disposition"]
        page.set_content(report.text())
        assert not ran(page)
        context.close()
        assert len(asked) > len(PAGES) and foreign(asked, address) == []
        assert looked_for(hosts) <= THIS_MACHINE


def test_a_header_that_cannot_be_is_one_sentence_without_its_markup(plain_atlas, browser, tmp_path):
    path = Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))
    whole = (path / "atlas.json").read_text()
    (tmp_path / "results").mkdir()
    with serving(path, tmp_path / "results") as address:
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        for *parents, name in (("delta", "estimator"), ("dictionary", "sparsity"), ("sources", 1, "name")):
            header = block = json.loads(whole)
            for parent in parents:
                block = block[parent]
            block[name] = EVIL
            (path / "atlas.json").write_text(json.dumps(header))
            page.goto(address)
            page.wait_for_selector("text=This atlas cannot be shown", timeout=WAIT)
            assert not ran(page)
        (path / "atlas.json").write_text(whole)
        page.reload()
        page.wait_for_selector("text=Most suppressed", timeout=WAIT)
        page.close()
