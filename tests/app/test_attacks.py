"""The app as an attacker meets it: foreign names, planted folders, odd records, odd numbers."""

import gzip
import http.client
import json
import os
import shutil
import threading
from argparse import Namespace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from engine.atlas.schema import thumb_file
from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from engine.samplers.records import generated_images, load_generation
from pages import routes
from pages.widgets import generate, html, jobs, session
from pages.widgets.plot import picked
from tests.app.test_pages import html as html_of
from tests.app.test_pages import opened
from tests.synthetic import build_synthetic_atlas

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def plain(use_atlas, plain_atlas):
    use_atlas(plain_atlas)


@pytest.fixture
def client():
    return TestClient(Starlette(routes=routes.routes()))


def status(server: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse().status


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "10.0.0.7", "x@evil", "["]
)
def test_a_foreign_name_reaches_nothing(server, host):
    for path in ("/", "/_stcore/health", "/atlas/v/facts.json", "/atlas/samplers/1.webp"):
        assert status(server, path, Host=host) in (400, 403)
    assert status(server, "/_stcore/stream", Host=host, **WEBSOCKET) in (400, 403)


def test_own_names_reach_the_app_and_a_foreign_page_does_not(server):
    port = urlsplit(server).port
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert status(server, "/atlas/v/facts.json", Host=f"{host}:{port}") == 200
    assert status(server, "/_stcore/stream", Origin=server, **WEBSOCKET) == 101
    assert status(server, "/_stcore/stream", Origin=f"http://localhost:{port}", **WEBSOCKET) == 101
    for origin in ("http://evil.example", "null", "http://["):
        assert status(server, "/_stcore/stream", Origin=origin, **WEBSOCKET) == 403
        assert status(server, "/atlas/v/facts.json", Origin=origin) == 403


def test_an_app_that_listens_everywhere_answers_to_numbers_and_its_own_name(monkeypatch):
    options = {"server.address": "0.0.0.0", "server.allowedHosts": ["*.lab.example"]}
    monkeypatch.setattr(st.config, "get_option", lambda name: options.get(name))
    names = ("10.0.0.7:8501", "[fe80::1]", "a.lab.example", "localhost")
    assert all(map(routes.is_known, names)) and not routes.is_known("evil.example") and not routes.is_known("")


def test_streamlit_asks_no_other_host_for_an_address():
    """It does at the start of a headless server unless one is set."""
    assert st.config.get_option("browser.serverAddress") == "localhost"
    assert st.config.get_option("server.address") == "127.0.0.1"
    assert st.config.get_option("browser.gatherUsageStats") is False


@pytest.mark.parametrize("number", ["9" * 4400, "-" + "9" * 4400, "²", "1e3", "+1", "%20", "0x1"])
def test_odd_numbers_are_404(client, number):
    for kind in ("thumb", "best"):
        assert client.get(f"/atlas/v/{kind}/{number}.webp").status_code == 404
    assert (
        client.get(f"/atlas/v/exhibit/delta-ranking.csv?concept={number}&top={number}&low={number}").status_code == 200
    )


@pytest.mark.parametrize("value", [10**4000, -(10**4000), float("inf"), float("nan"), 10**12])
def test_an_odd_click_picks_nothing(value):
    assert picked(value) is None


def test_an_odd_link_shows_the_page():
    opened("concept_map", concept="9" * 4400, text="9" * 80, job="٣" * 16)


def test_only_who_accepts_gzip_gets_it(client):
    with client.stream("GET", "/atlas/v/facts.json", headers={"accept-encoding": "identity"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert "content-encoding" not in answer.headers and json.loads(raw)["label"]
    with client.stream("GET", "/atlas/v/facts.json", headers={"accept-encoding": "br, gzip"}) as answer:
        assert gzip.decompress(b"".join(answer.iter_raw())) == raw
    known = {"": False, "gzip;q=0": False, "*": True, "GZIP": True, "*;q=0": False, "gzip; q=0.5": True, "br": False}
    assert {header: routes.accepts_gzip(header) for header in known} == known


def record(**changes: object) -> dict:
    whole = {
        "parameters": GenerationRequest(5).parameters(), "images": ["00.png"], "scores": [1.0], "codes_scores": [0.5],
        "trace": [[1.0]], "references": [{"image": 3, "score": 1.0}], "reference_score": 1.0, "matched": None,
        "seconds": 1.0,
    }  # fmt: skip
    return whole | changes


def planted(folder, content: object, image: bytes = PNG):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "drawing.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "00.png").write_bytes(image)
    return folder


ODD = [
    [], None, "x", 3, "{", "[" * 100_000, "9" * 5000, {}, record(images=["../../etc/passwd"]),
    record(images=["/etc/passwd"]),
    record(images="00.png"), record(images=[]), record(scores=["1"]), record(scores=[]), record(references=[3]),
    record(references=[{"image": "3", "score": 1}]), record(seconds=None), record(reference_score="1"),
    record(tilt={}), record(tilt={"beta": None}),
    record(parameters=[]), record(parameters={}), record(parameters={"concept": "5"}),
    record(parameters={"concept": 5, "strength": "x"}), record(parameters={"concept": 5, "others": 7}),
    record(parameters={"concept": 5, "count": -1}), record(images=["00.png"] * 9), " " * (9 << 20),
]  # fmt: skip


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_an_odd_record_is_one_sentence(tmp_path, content):
    with pytest.raises(BlindspotError) as error:
        load_generation(planted(tmp_path / "job", content if content != "x" else '"x"'))
    assert "\n" not in str(error.value)


def test_a_whole_record_is_read_and_links_are_not_followed(tmp_path):
    folder, secret = planted(tmp_path / "job", record()), tmp_path / "secret"
    secret.write_bytes(PNG + b"secret")
    assert generated_images(folder, load_generation(folder)) == [PNG]
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BlindspotError):
        load_generation(tmp_path / "link")
    for plant in (
        lambda path: path.symlink_to(secret),
        os.mkfifo,
        os.mkdir,
        lambda path: path.write_bytes(b"root:x:0:0"),
    ):
        (folder / "00.png").unlink() if not (folder / "00.png").is_dir() else (folder / "00.png").rmdir()
        plant(folder / "00.png")
        with pytest.raises(BlindspotError):
            generated_images(folder, record())
    (folder / "drawing.json").unlink()
    (folder / "drawing.json").symlink_to("/dev/zero")
    with pytest.raises(BlindspotError):
        load_generation(folder)


def test_results_are_the_user_s_own_and_nobody_else_reads_them(tmp_path, monkeypatch):
    monkeypatch.delenv("BLINDSPOT_RESULTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = jobs.results_folder()
    assert folder == tmp_path / "data" / "blindspot-atlas" / "jobs" and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert jobs.results_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(BlindspotError, match="somebody else's"):
        jobs.results_folder()
    monkeypatch.undo()
    monkeypatch.delenv("BLINDSPOT_RESULTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder.rmdir()
    folder.symlink_to("/etc")
    with pytest.raises(BlindspotError, match="a link"):
        jobs.results_folder()
    monkeypatch.setenv("BLINDSPOT_RESULTS", str(tmp_path / "mine"))
    assert jobs.results_folder() == tmp_path / "mine"
    monkeypatch.setenv("BLINDSPOT_RESULTS", "/dev/null/x")
    with pytest.raises(BlindspotError, match="set BLINDSPOT_RESULTS to a folder of your own"):
        jobs.results_folder()


@pytest.fixture
def drawable(use_atlas, drawable_atlas, tmp_path, monkeypatch):
    use_atlas(drawable_atlas)
    monkeypatch.setenv("BLINDSPOT_RESULTS", str(tmp_path))
    jobs.queue.clear()
    yield tmp_path
    jobs.queue().close()
    jobs.queue.clear()


def test_a_card_loads_no_model_until_a_person_asks(drawable, monkeypatch):
    monkeypatch.setattr(generate, "warm_up", lambda atlas: pytest.fail("models were loaded unasked"))
    before = threading.active_count()
    app = opened("concept_map", concept="5")
    assert any("which this atlas names" in entry.value for entry in app.caption)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("warm-up")], before


@pytest.mark.parametrize("content", ODD[7:12], ids=range(5))
def test_a_planted_job_is_one_sentence_on_the_card(drawable, content):
    planted(drawable / ("a" * 16), content)
    app = opened("concept_map", concept="5", job="a" * 16)
    assert len(app.error) == 1 and "generate it again" in app.error[0].value


def test_finished_drawings_are_listed_after_a_restart(drawable, drawable_atlas):
    planted(drawable / ("b" * 16), record(atlas=str(drawable_atlas)))
    planted(drawable / ("c" * 16), record(atlas="/another"))
    planted(drawable / ("d" * 16), [])
    (drawable / ("e" * 16)).symlink_to(drawable / ("b" * 16))
    shown = html_of(opened("concept_map", concept="5"))
    assert "Drawn before" in shown and "b" * 16 in shown
    assert not any(letter * 16 in shown for letter in "cde")


@pytest.mark.parametrize("kind", [BlindspotError, KeyError, TypeError])
def test_an_error_inside_a_fragment_is_one_sentence(kind, caplog):
    def script(name: str) -> None:
        from engine.errors import BlindspotError
        from pages.widgets import html

        @html.fragment
        def part() -> None:
            raise {"BlindspotError": BlindspotError, "KeyError": KeyError, "TypeError": TypeError}[name](
                "It is <b>gone</b>."
            )

        part()

    app = AppTest.from_function(script, args=(kind.__name__,), default_timeout=120).run()
    assert not app.exception and len(app.error) == 1 and "gone" in app.error[0].value and "\\<b" in app.error[0].value
    logged = [entry for entry in caplog.records if entry.name == "pages.widgets.html"]
    assert bool(logged) == (kind is not BlindspotError)
    caplog.clear()


@pytest.mark.parametrize(
    "text", ["http://evil.example", "www.evil.example", "a@evil.example", "# x", "- x", "+ x", "1. x", "> x",
             "&lt;b&gt;", "a|b", ":material/home:", ":smile:", ":red[x]", "$x$", "a\n\n# b", "~~x~~",
             "[x](javascript:alert(1))"],
)  # fmt: skip
def test_no_text_is_markdown(text):
    from markdown_it import MarkdownIt

    shown = html.plain(text)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(shown)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in tokens[1].children} <= {"text", "text_special"}
    assert "".join(child.content for child in tokens[1].children).replace("\u2060", "") == " ".join(text.split())
    assert "://" not in shown and "www." not in shown and "@e" not in shown


@pytest.fixture
def rebuilt(use_atlas, tmp_path):
    """An atlas, and what builds another one in its place."""

    build = partial(build_synthetic_atlas, tmp_path / "atlas", pairs=12)
    use_atlas(build(concepts=48))
    return partial(build, concepts=40, models=("gamma",), seed=1)


def test_an_atlas_rebuilt_while_it_is_open_is_noticed_by_pages(rebuilt):
    app = opened("concept_map", model="beta", concept="5")
    rebuilt()
    app.run()
    assert not app.exception and [entry.value for entry in app.toast] == ["The atlas was rebuilt; this is the new one."]
    assert "alpha" not in html_of(app) and "gamma" in html_of(app)
    assert not app.run().toast


def test_an_atlas_rebuilt_while_it_is_open_is_noticed_by_parts_of_pages(rebuilt, monkeypatch):
    app = opened("concept_map", model="beta", concept="5")
    rebuilt()
    monkeypatch.setattr(session, "was_rebuilt", lambda: False)  # as where a part of a page runs alone
    asked, stop = [], session.st.stop
    monkeypatch.setattr(session.st, "rerun", lambda: asked.append(1) or stop())
    app.run()
    assert asked == [1] and not app.exception


def test_an_address_of_an_atlas_that_was_rebuilt_is_404(rebuilt, client):
    old = session.version(session.atlas())
    picture = client.get(f"/atlas/{old}/thumb/3.webp").content
    assert len(client.get(f"/atlas/{old}/facts.json").json()["label"]) == 48
    rebuilt()
    for path in ("thumb/3.webp", "facts.json", "map.json", "exhibit/delta-ranking.csv"):
        assert client.get(f"/atlas/{old}/{path}").status_code == 404
    new = session.version(session.atlas())
    assert client.get(f"/atlas/{new}/thumb/3.webp").content not in (b"", picture)
    assert len(client.get(f"/atlas/{new}/facts.json").json()["label"]) == 40
    assert "gamma" in client.get(f"/atlas/{new}/map.json").text


@pytest.mark.parametrize("target", ["secret", "/dev/zero", "thumbs"])
def test_links_in_an_atlas_are_not_followed(use_atlas, plain_atlas, tmp_path, target, client):
    path, secret = Path(shutil.copytree(plain_atlas, tmp_path / "atlas")), tmp_path / "secret"
    if target == "thumbs":
        (path / "thumbs").rename(secret)
        (path / "thumbs").symlink_to(secret)
    else:
        secret.write_bytes((path / thumb_file(3)).read_bytes())
        (path / thumb_file(3)).unlink()
        (path / thumb_file(3)).symlink_to(secret if target == "secret" else target)
    use_atlas(path)
    assert client.get("/atlas/v/thumb/3.webp").status_code == 404
    assert client.get("/atlas/v/thumb/4.webp").status_code == (404 if target == "thumbs" else 200)
    app = opened("concept_map", concept="5", image="3")
    assert len(app.error) == 1 and "symbolic link" in app.error[0].value


@pytest.fixture
def held(drawable, monkeypatch):
    """The app's queue, whose work waits until it is let go, and one job that somebody else asked for."""
    going, queue = threading.Event(), jobs.queue()

    def wait(task):
        while not going.wait(0.02):
            task.report(1, 2)

    def submit(queue, atlas, request, holder, _dtype):
        return queue.submit({"seed": request.seed}, wait, holder)

    monkeypatch.setattr(generate, "submit_generation", submit)
    yield queue, queue.submit({"seed": "theirs"}, wait, "somebody else")
    going.set()


def test_a_job_that_somebody_else_waits_for_goes_on_when_one_cancels(held):
    queue, job = held
    app = opened("concept_map", concept="5", job=job.id)
    app.button(key="cancel_job").click().run()
    assert [entry.value for entry in app.toast] and "job" not in app.query_params
    assert queue.get(job.id).state == "running"
    queue.cancel(job.id, "somebody else")
    assert queue.wait(job.id, 5).state == "cancelled"


def press(app, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()


def test_one_person_cannot_fill_the_queue(held, monkeypatch):
    queue, _ = held
    monkeypatch.setattr(jobs, "me", lambda: "me")
    mine = [queue.submit({"mine": number}, lambda task: None, "me") for number in range(4)]
    app = opened("concept_map", concept="5")
    press(app, "Generate")
    assert len(mine) == 4 and "You have 4 jobs that have not ended" in app.error[0].value


def test_a_browser_tab_is_a_holder_while_it_is_open(held, monkeypatch):
    asked = []
    monkeypatch.setattr(generate, "submit_generation", lambda *given: asked.append(given) or held[1])
    press(opened("concept_map", concept="5"), "Generate")
    assert asked[0][3] and jobs._is_here(asked[0][3])
    monkeypatch.setattr(jobs.runtime, "exists", lambda: True)
    monkeypatch.setattr(jobs.runtime, "get_instance", lambda: Namespace(is_active_session={"a": True}.get))
    assert jobs._is_here("a") and not jobs._is_here("b")
