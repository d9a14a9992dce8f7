"""Readers behind a real endpoint with all its faults: what arrives, what is counted as missing, what is paid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from engine.errors import BlindspotError
from engine.readers.asking import LOST
from engine.readers.base import Question, Status, clean_text, parse_answer
from engine.readers.loading import load_reader
from tests.engine.readers.endpoint import KEY, completion, serving
from tests.engine.readers.tiny_vlm import tiny_vlm

ROOT = Path(__file__).parents[3]
SCHEMA = {
    "type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"], "additionalProperties": False,
}  # fmt: skip


def question(text: str, *images: bytes) -> Question:
    return Question("test/1", text, images, SCHEMA)


def png(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("engine.readers.limits.FIRST_WAIT", 0.02)


def good(text: str):
    return 200, {}, completion({"label": text})


def test_every_answer_arrives_or_is_counted_whatever_the_endpoint_does(tmp_path):
    faults = {
        "delayed": lambda text, number: (time.sleep(0.2), good(text))[1],
        "limited": lambda text, number: (
            (429, {"Retry-After": "0.3"}, {"error": {"message": "slow down"}}) if not number else good(text)
        ),
        "limited by date": lambda text, number: (
            (429, {"Retry-After": formatdate(time.time() - 5, usegmt=True)}, {}) if not number else good(text)
        ),
        "failing twice": lambda text, number: (500 + 3 * number, {}, "<b>oops") if number < 2 else good(text),
        "always failing": lambda text, number: (500, {}, {"error": {"message": f"no {KEY} <script>"}}),
        "broken": lambda text, number: (200, {}, None) if not number else good(text),
        "no protocol": lambda text, number: (200, {}, '{"choices": [') if not number else good(text),
        "malformed": lambda text, number: (200, {}, completion('{"label": ')),
        "wrong schema": lambda text, number: (200, {}, completion({"name": 3})),
        "cut off": lambda text, number: (200, {}, completion('{"label": "x', finish="length")),
        "refused": lambda text, number: (200, {}, completion("", refusal="I will not.")),
        "refused in words": lambda text, number: (200, {}, completion("I'm sorry, I can't help with that.")),
        "filtered": lambda text, number: (400, {}, {"error": {"message": "no", "code": "content_policy_violation"}}),
        "fenced": lambda text, number: (200, {}, completion('Sure!\n```json\n{"label": "fenced"}\n```')),
    }
    with serving(lambda text, number, request: faults[text](text, number)) as endpoint:
        reader = load_reader(
            "openai:m", cache=tmp_path / "a.sqlite", base_url=endpoint.url, retries=2, price_in=1.0, price_out=2.0,
        )  # fmt: skip
        seen = {}
        answers = reader.ask([question(name) for name in faults], seen.__setitem__)
        found = {name: answer.status for name, answer in zip(faults, answers, strict=True)}
        bad = {
            "always failing": Status.FAILED, "malformed": Status.MALFORMED, "wrong schema": Status.MALFORMED,
            "cut off": Status.MALFORMED, "refused": Status.REFUSED, "refused in words": Status.REFUSED,
            "filtered": Status.REFUSED,
        }  # fmt: skip
        assert found == {name: bad.get(name, Status.ANSWERED) for name in faults}
        assert seen == dict(enumerate(answers))
        assert {name: a.value for name, a in zip(faults, answers, strict=True) if a.value} == {
            name: {"label": name} for name in faults if name not in bad
        }
        assert all(answer.reason for answer in answers if answer.status != Status.ANSWERED)
        assert KEY not in " ".join(str(answer) for answer in answers) and endpoint.keys == {f"Bearer {KEY}"}
        # The same again: what was paid for is kept, what failed is asked anew.
        before = endpoint.tries.copy()
        second = load_reader("openai:m", cache=tmp_path / "a.sqlite", base_url=endpoint.url, retries=0)
        again = second.ask([question(name) for name in faults])
        assert (endpoint.tries - before).keys() == {"always failing"}
        assert [a.status for a in again] == [a.status for a in answers] and sum(a.cached for a in again) == 13
        assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.iterdir())
        assert {name for name, count in endpoint.paid.items() if count > 1} == {"no protocol"}


def test_a_killed_run_goes_on_and_pays_no_call_twice(tmp_path):
    code = (
        "import sys; from engine.readers.loading import load_reader; from engine.readers.base import Question\n"
        "questions = [Question('test/1', f'q{i}') for i in range(24)]\n"
        "reader = load_reader('openai:m', cache=__import__('pathlib').Path(sys.argv[1]), base_url=sys.argv[2])\n"
        "print(sum(a.status == 'answered' for a in reader.ask(questions)))"
    )

    def slow(text, number, request):
        time.sleep(0.15)
        return good(text)

    with serving(slow) as endpoint:
        words = [sys.executable, "-c", code, str(tmp_path / "a.sqlite"), endpoint.url]
        run = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        while sum(endpoint.tries.values()) < 9 and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(0.2)
        questions = [Question("test/1", f"q{i}") for i in range(24)]
        reader = load_reader("openai:m", cache=tmp_path / "a.sqlite", base_url=endpoint.url)
        lost = reader.plan(questions).lost
        answers = reader.ask(questions)
        assert max(endpoint.paid.values()) == 1 and max(endpoint.tries.values()) == 1
        missing = [answer for answer in answers if answer.status != Status.ANSWERED]
        assert len(missing) == lost and 0 < lost <= 4 and {answer.reason for answer in missing} == {LOST}
        # Whoever accepts to pay those twice gets them all.
        again = load_reader("openai:m", cache=tmp_path / "a.sqlite", base_url=endpoint.url, again=True)
        assert all(answer.status == Status.ANSWERED for answer in again.ask(questions))
        assert 24 < sum(endpoint.tries.values()) <= 24 + lost


def test_limits_on_rate_and_money_hold_and_say_so(tmp_path):
    with serving(lambda text, number, request: good(text)) as endpoint:
        questions = [question(f"q{i}", png()) for i in range(6)]
        fast = load_reader("openai:m", base_url=endpoint.url, per_minute=1200)
        began = time.monotonic()
        fast.ask(questions)
        assert time.monotonic() - began >= 5 * 0.05
        settings = {"price_in": 10.0, "price_out": 100.0, "concurrency": 1}
        plan = load_reader("openai:m", base_url=endpoint.url, **settings).plan(questions)
        assert plan.calls == 6 and plan.price == pytest.approx((plan.tokens_in * 10 + plan.tokens_out * 100) / 1e6)
        budget = plan.price / 6 + 0.0075  # what a call is expected to cost, and two and a half that cost 0.003
        poor = load_reader("openai:m", base_url=endpoint.url, budget=budget, **settings)
        answers = poor.ask(questions)
        missing = [answer.reason for answer in answers if answer.status == Status.FAILED]
        assert len(missing) == 3 and "budget" in missing[0]
        assert poor.purse.spent == pytest.approx(3 * (100 * 10 + 20 * 100) / 1e6)
    with pytest.raises(BlindspotError, match="--price-in"):
        load_reader("openai:m", budget=1.0)


def test_an_endpoint_without_structured_output_is_asked_more_plainly():
    def old(text, number, request):
        for name in ("response_format", "temperature", "max_tokens"):
            if name in request:
                return 400, {}, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
        return good(text)

    with serving(old) as endpoint:
        reader = load_reader("openai:m", base_url=endpoint.url, concurrency=1)
        answers = reader.ask([question("a", png()), question("b")])
        assert [answer.value for answer in answers] == [{"label": "a"}, {"label": "b"}]
        assert endpoint.tries == {"a": 5, "b": 1}
        kinds = [part["type"] for part in endpoint.requests[0]["messages"][1]["content"]]
        assert kinds == ["text", "image_url"]
        assert endpoint.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert endpoint.requests[-1]["max_completion_tokens"] == 1000


def test_a_wrong_key_ends_with_one_sentence_and_an_endpoint_that_is_gone_with_missing_answers(monkeypatch):
    with serving(lambda text, number, request: (401, {}, {"error": {"message": f"bad key {KEY}"}})) as endpoint:
        with pytest.raises(BlindspotError, match="OPENAI_API_KEY") as caught:
            load_reader("openai:m", base_url=endpoint.url).ask([question("a")])
        assert KEY not in str(caught.value)
    gone = load_reader("openai:m", base_url=endpoint.url, retries=1, concurrency=1)
    answers = gone.ask([question(f"q{i}") for i in range(30)])
    assert {answer.status for answer in answers} == {Status.FAILED} and "reached" in answers[-1].reason
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(BlindspotError, match="Set OPENAI_API_KEY"):
        load_reader("openai:m").ask([question("a")])


def test_a_local_model_answers_without_code_of_its_own_or_pickles(tmp_path):
    folder = tiny_vlm(tmp_path / "vlm", '{"label":"ring"}')
    reader = load_reader(str(folder), cache=tmp_path / "a.sqlite", device="cpu", max_tokens=2)
    questions = [question("two images", png(), png("blue")), question("none")]
    assert reader.plan(questions).calls == 2  # needs no weights
    answers = reader.ask(questions)
    assert [answer.value for answer in answers] == [{"label": "ring"}] * 2 and answers[0].tokens_in > 32
    strict = load_reader(str(folder), device="cpu", max_tokens=2)
    wrong = strict.ask([Question("test/1", "x", (), {"type": "object", "required": ["score"]})])
    assert wrong[0].status == Status.MALFORMED
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BlindspotError, match="cannot be loaded"):
        load_reader(str(pickled), device="cpu").ask(questions)
    with pytest.raises(BlindspotError, match="There is no reader"):
        load_reader("./nothing here")


def test_text_of_answers_is_one_bounded_line_without_control_characters():
    bidi = "\u202e\x00\x1b[31mred\nline\ud800"
    assert clean_text(bidi) == "[31mred line" and len(clean_text("x" * 9999, 60)) == 60
    assert parse_answer('<think>{"label": 1}</think>{"label": "a\\u0000b"}', SCHEMA) == {"label": "a b"}
    for text in ("", "[1]", '{"label": NaN}', "{" * 100_000, '{"label": "a", "more": 1}'):
        with pytest.raises(ValueError):
            parse_answer(text, SCHEMA)
