"""A model behind an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, LM Studio, Gemini's and Anthropic's.

Base URL and key come from the environment (OPENAI_BASE_URL, OPENAI_API_KEY). The key is sent to the endpoint and is
part of no message, file or cache.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

from engine.errors import BlindspotError
from engine.readers.asking import CallFailed, Reply
from engine.readers.base import SYSTEM, Question, clean_text, instructed
from engine.readers.limits import Limits

BASE_URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent where no key is needed: by servers on one's own machine."""
FORMATS = ("json_schema", "json_object", None)
"""Ways to ask for JSON, the strictest first; an endpoint that does not know one gets the next."""
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")


class OpenAIBackend:
    """Sends questions by the `openai` client's chat completions; its own retries are off, `LimitedReader` has them.

    Parameters
    ----------
    model
        As the endpoint calls it.
    limits
        Its timeout and tokens of an answer.
    base_url
        Of the endpoint; None takes OPENAI_BASE_URL, or else OpenAI's own.

    Raises
    ------
    BlindspotError
        If the `openai` package is not installed, or the base URL is no http(s) address.
    """

    def __init__(self, model: str, limits: Limits, base_url: str | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise BlindspotError(
                "Asking an endpoint needs the openai package: pip install 'blindspot-atlas[readers]'."
            ) from error
        self.name, self._model, self._limits = f"openai:{model}", model, limits
        url = base_url or os.environ.get(BASE_URL) or DEFAULT_BASE_URL
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BlindspotError("The base URL of a reader must begin with http:// or https:// and name a host.")
        self._host, self._key = parts.hostname, os.environ.get(KEY) or NO_KEY
        self._needs_key = url.rstrip("/") == DEFAULT_BASE_URL and self._key == NO_KEY
        self._client = openai.OpenAI(api_key=self._key, base_url=url, timeout=limits.timeout, max_retries=0)
        # What the endpoint turned out to take; found by asking, so any thread may change it.
        self._lock, self._format = threading.Lock(), 0
        self._options: dict[str, Any] = {"temperature": 0, "max_tokens": limits.max_tokens}

    def call(self, question: Question) -> Reply:
        """Send one question; raises as `engine.readers.asking.Backend` says."""
        if self._needs_key:
            raise BlindspotError(f"Set {KEY} to your key, or {BASE_URL} to an endpoint that needs none.")
        with self._lock:
            way, options = self._format, dict(self._options)
        while True:
            try:
                reply = self._once(question, FORMATS[way], options)
                break
            except _Refused as refused:
                return Reply("", str(refused), tokens_in=0, tokens_out=0)
            except _NotTaken as refused:
                if refused.option == "max_tokens" and "max_tokens" in options:
                    options["max_completion_tokens"] = options.pop("max_tokens")
                elif refused.option in options:
                    del options[refused.option]
                elif way + 1 < len(FORMATS):
                    way += 1
                else:
                    raise CallFailed(str(refused), retry=False) from refused
        with self._lock:
            self._format, self._options = way, options
        return reply

    def _once(self, question: Question, way: str | None, options: Mapping[str, Any]) -> Reply:
        import openai

        asked = dict(options)
        if way is not None and (form := _response_format(question, way)) is not None:
            asked["response_format"] = form
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self._model, messages=_messages(question), **asked
            )
            body = raw.http_response.text
        except openai.APIStatusError as error:
            raise self._of_status(error) from error
        except openai.APITimeoutError as error:
            raise CallFailed(f"No reply within {self._limits.timeout:g} s.", paid=True) from error
        except openai.APIConnectionError as error:
            cause = self._said(error.__cause__ or error)
            broken = type(error.__cause__).__name__ in ("RemoteProtocolError", "ReadError", "DecodingError")
            raise CallFailed(f"The connection to {self._host} failed: {cause}.", paid=broken, reached=broken) from error
        except openai.OpenAIError as error:
            raise CallFailed(self._said(error), paid=True) from error
        return self._read(body)

    def _read(self, body: str) -> Reply:
        """What an endpoint's reply of status 200 says."""
        try:
            document = json.loads(body)
            choice = document["choices"][0]
            message, ending = choice["message"], choice.get("finish_reason")
            content, refusal = message.get("content") or "", message.get("refusal")
            if isinstance(content, list):
                content = "".join(str(part.get("text", "")) for part in content)
            usage = document.get("usage") or {}
            used = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CallFailed("The endpoint's reply is not one of this protocol.", paid=True) from error
        if ending == "content_filter":
            refusal = refusal or "The endpoint's filter held the answer back."
        tokens = [number if type(number) is int and number >= 0 else None for number in used]
        return Reply(str(content), self._clean(str(refusal)) if refusal else None, ending == "length", *tokens)

    def _of_status(self, error: Any) -> Exception:
        """What a reply of another status than 200 means."""
        status, said = error.status_code, self._said(error)
        code, param = (str(getattr(error, name, None) or "") for name in ("code", "param"))
        if status in (401, 404):
            hint = f"check {KEY}" if status == 401 else "check the model's name and the base URL"
            return BlindspotError(f"{self._host} answers {status} ({said}): {hint}.")
        if any(word in code or word in said for word in FILTERED):
            return _Refused(said)
        if status in (400, 422):
            option = next((name for name in ("max_tokens", "temperature") if name in (param, *said.split("'"))), "")
            return _NotTaken(f"{self._host} answers {status}: {said}.", option)
        retry = status in (408, 409, 425, 429) or status >= 500
        return CallFailed(f"{self._host} answers {status}: {said}.", retry=retry, after=_retry_after(error.response))

    def _said(self, error: Any) -> str:
        """An error's own words, short."""
        body = getattr(error, "body", None)
        words = body.get("message") if isinstance(body, dict) else None
        return self._clean(str(words or error) or type(error).__name__).rstrip(".")

    def _clean(self, text: str) -> str:
        """Text from outside on one line, without the key, which some endpoints quote."""
        return clean_text(text.replace(self._key, "***") if self._key != NO_KEY else text, 200)


class _Refused(Exception):
    """The endpoint's filter holds the question or its answer back."""


class _NotTaken(Exception):
    """The endpoint does not take the request as it is put."""

    def __init__(self, reason: str, option: str) -> None:
        super().__init__(reason)
        self.option = option


def _messages(question: Question) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in question.images]
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "text", "text": instructed(question)}, *images]},
    ]


def _response_format(question: Question, way: str) -> dict[str, Any] | None:
    if way == "json_object" or question.schema is None:
        return {"type": "json_object"}
    schema = dict(question.schema)
    # Strict mode takes only schemas whose every property is required and that allow no other.
    strict = schema.get("additionalProperties") is False and {*schema.get("required", ())} == {*schema["properties"]}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def _data_url(image: bytes) -> str:
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
    kind = next((kind for magic, kind in kinds.items() if image.startswith(magic)), None)
    if kind is None:
        raise BlindspotError("An image for a reader is neither PNG, JPEG nor WebP.")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _retry_after(response: Any) -> float | None:
    """Seconds that a reply asks to wait, from `Retry-After` as a number or a date; None if it does not say."""
    told = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
