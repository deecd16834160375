"""A model behind a URL that speaks OpenAI's API, such as that of `vllm serve` or `transformers serve`. Needs the extra `served`.

>>> ask = ServedModel("http://127.0.0.1:8000/v1")
>>> ask("The capital of France is", 4)

Every call ends: it is tried a few times, each with a deadline, and then a sentence says what was wrong. A key for the server is read
from the environment when it is needed, and neither kept nor shown.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import tenacity

from data_schemas.errors import UserError

_MOST_BYTES = 16 << 20  # of one response
_LONGEST_WAIT_S = 30.0
_RETRIED = frozenset({408, 409, 425, 429})  # and all from 500 on
_SHOWN_CHARACTERS = 200  # of what a server says


class _NoAnswerError(Exception):
    """Another try may help; the message says what was wrong with this one."""


@dataclass(frozen=True)
class ServedModel:
    """Called with a prompt and the most tokens of the answer; returns the answer's text, at temperature 0.

    Args:
        url: of the API, up to and with `/v1`.
        model: its name there; empty: the first one that the server lists.
        api: `completions` continues the prompt; `chat` sends it as a message through the model's chat template.
        timeout_s: for one try, from the request to the last byte of the response. Until the response's headers are there it holds for
            each wait alone: to connect, to send, and for each next piece of the headers.
        attempts: tries before giving up.
        wait_s: pause before the second try; doubled before each further one, up to 30 s.
        key_name: the environment variable with the server's key, if it wants one.

    Raises UserError if the URL cannot be used, the server refuses the request, or no try brings an answer.
    """

    url: str
    model: str = ""
    api: Literal["completions", "chat"] = "completions"
    timeout_s: float = 120.0
    attempts: int = 3
    wait_s: float = 1.0
    key_name: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"The model's URL {self.url} is not one: give http://HOST:PORT/v1 or https://HOST/v1.")
        if parts.username or parts.password or parts.query:
            raise UserError(
                f"The model's URL at {parts.hostname} holds a key, password or query: leave it out and set the environment variable "
                f"{self.key_name}."
            )
        if self.timeout_s <= 0 or self.attempts < 1 or self.wait_s < 0:
            raise UserError("timeout_s must be above 0, attempts at least 1 and wait_s at least 0.")

    def __call__(self, prompt: str, max_tokens: int) -> str:
        body: dict[str, Any] = {"model": self.name, "max_tokens": max_tokens, "temperature": 0}
        if self.api == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
            return self._tried("POST", "chat/completions", _chat_text, body)
        return self._tried("POST", "completions", _completion_text, body | {"prompt": prompt})

    @cached_property
    def name(self) -> str:
        """The model's name at the server."""
        return self.model or self._tried("GET", "models", _first_model)

    @property
    def identity(self) -> str:
        """Tells this model's answers from those of others."""
        return f"{self.api} {self.name}"

    @cached_property
    def _client(self) -> httpx.Client:
        # Reading the certificates of authorities takes most of a second; redirects, which could lead to https, are not followed.
        return httpx.Client(timeout=self.timeout_s, verify=urlsplit(self.url).scheme == "https")

    def _tried(self, method: str, path: str, read: Any, body: dict[str, Any] | None = None) -> str:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential(self.wait_s, max=_LONGEST_WAIT_S),
            retry=tenacity.retry_if_exception_type(_NoAnswerError),
            reraise=True,
        )
        try:
            return retrying(lambda: str(read(self._json(method, path, body))))
        except _NoAnswerError as fault:
            tries = f"{self.attempts} tries" if self.attempts > 1 else "1 try"
            raise UserError(
                f"The model at {self.url} gave no answer in {tries} (the last time {fault}): check that it runs and speaks OpenAI's API, "
                "or give it more time."
            ) from fault

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        key = os.environ.get(self.key_name, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        end = time.monotonic() + self.timeout_s
        url = f"{self.url.rstrip('/')}/{path}"
        try:
            with self._client.stream(method, url, json=body, headers=headers) as response:
                content = self._content(response, end)
        except httpx.TimeoutException as error:
            raise _NoAnswerError(f"it took more than {self.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise _NoAnswerError(f"the connection failed: {type(error).__name__}") from error
        said = content.decode("utf-8", "replace")
        self._refuse_status(response.status_code, said.replace(key, "…") if key else said)
        try:
            return json.loads(said)
        except json.JSONDecodeError as error:
            raise _NoAnswerError("it sent no JSON") from error

    def _content(self, response: httpx.Response, end: float) -> bytes:
        """The body; a server that sends a little now and then does not get more time than another."""
        content = b""
        for piece in response.iter_bytes():
            content += piece
            if time.monotonic() > end:
                raise _NoAnswerError(f"it took more than {self.timeout_s:g} s")
            if len(content) > _MOST_BYTES:
                raise _NoAnswerError(f"it sent more than {_MOST_BYTES >> 20} MiB")
        return content

    def _refuse_status(self, status: int, said: str) -> None:
        shown = " ".join(said.split())[:_SHOWN_CHARACTERS]
        if status in (401, 403):
            raise UserError(f"The model at {self.url} wants a key ({status}): set the environment variable {self.key_name}.")
        if status >= 500 or status in _RETRIED:
            raise _NoAnswerError(f"it answered with status {status}: {shown}")
        if status != 200:
            raise UserError(
                f"The model at {self.url} refused the request ({status}: {shown}): check the URL, the model's name, and that prompt and "
                "answer fit its window."
            )


def _first_model(content: Any) -> str:
    try:
        name = content["data"][0]["id"]
    except (LookupError, TypeError) as error:
        raise _NoAnswerError("it listed no model") from error
    return str(name)


def _choice(content: Any) -> Any:
    try:
        return content["choices"][0]
    except (LookupError, TypeError) as error:
        raise _NoAnswerError("it sent no `choices`") from error


def _completion_text(content: Any) -> str:
    return _text(_choice(content), "text")


def _chat_text(content: Any) -> str:
    choice = _choice(content)
    return _text(choice.get("message") if isinstance(choice, dict) else None, "content")


def _text(holder: Any, name: str) -> str:
    text = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise _NoAnswerError("its answer was empty")
    return text
