"""A served model that answers rightly, slowly, wrongly or not at all: an answer, or one sentence within a bounded time."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from data_schemas.errors import UserError
from tasks.reorder.served import ServedModel
from tests.tasks.reorder.model_server import model_server

pytestmark = pytest.mark.usefixtures("servers")


def model(url: str, **settings: object) -> ServedModel:
    return ServedModel(url, **({"attempts": 2, "wait_s": 0.01, "timeout_s": 30} | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_prompt_gets_its_answer(api: str) -> None:
    with model_server(str.upper) as served:
        assert model(served.url, api=api)("how?", 7) == "HOW?"
        (asked,) = served.asked
    assert {name: asked[name] for name in ("model", "max_tokens", "temperature")} == {
        "model": "tiny",
        "max_tokens": 7,
        "temperature": 0,
    }


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("not JSON", "it sent no JSON"),
        ("[]", "it sent no `choices`"),
        ('{"choices": []}', "it sent no `choices`"),
        ('{"choices": [{"text": "  "}]}', "its answer was empty"),
        ('{"choices": [{"text": null}]}', "its answer was empty"),
        ('{"choices": [7]}', "its answer was empty"),
        ("503", "it answered with status 503"),
        ("429", "it answered with status 429"),
        ("drop", "the connection failed"),
    ],
)
def test_a_fault_is_tried_again_and_then_said(fault: str, said: str) -> None:
    with model_server(str.upper, fault) as served:
        assert model(served.url)("a", 1) == "A"
        assert len(served.asked) == 2
        served.faults[:] = [fault] * 9
        with pytest.raises(UserError, match=f"gave no answer in 2 tries \\(the last time {said}"):
            model(served.url)("a", 1)
        assert len(served.asked) == 4


@pytest.mark.parametrize("fault", ["hang", "dribble"])
def test_a_slow_answer_is_given_up(fault: str) -> None:
    with model_server(str.upper, *[fault] * 2) as served:
        slow = model(served.url, timeout_s=0.2, model="tiny")
        with pytest.raises(UserError, match=r"gave no answer in 2 tries \(the last time it took more than 0.2 s\)"):
            slow("a", 1)  # a hanging answer would come after 2 s, a dribbling one after 4


def test_nobody_there_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match="the connection failed: ConnectError"):
        model(f"http://127.0.0.1:{port}/v1")("a", 1)


def test_a_refusal_is_said_at_once_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with model_server(str.upper, "404", "401") as served:
        ask = model(served.url)
        with pytest.raises(UserError, match=r"refused the request \(404: .* check the URL, the model's name") as refused:
            ask("a", 1)
        with pytest.raises(UserError, match=r"wants a key \(401\): set the environment variable OPENAI_API_KEY"):
            ask("a", 1)
        assert served.keys == ["Bearer secret-key"] * 2
    assert "secret" not in str(refused.value) + repr(ask)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000", "is not one"),
        ("ftp://host/v1", "is not one"),
        ("http://me:hidden@host/v1", "holds a key, password or query"),
        ("http://host/v1?key=hidden", "holds a key, password or query"),
    ],
)
def test_an_url_that_cannot_be_used_is_refused(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        ServedModel(url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "is_checked"), [("https://host/v1", True), ("HTTPS://host/v1", True), ("http://host/v1", False)]
)
def test_certificates_are_checked_however_https_is_written(url: str, is_checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bool] = []

    class Client(httpx.Client):
        def __init__(self, *, verify: bool | ssl.SSLContext, timeout: float) -> None:
            checked.append(bool(verify))
            super().__init__(verify=False, timeout=timeout, transport=httpx.MockTransport(lambda _: httpx.Response(404)))

    monkeypatch.setattr(httpx, "Client", Client)
    with pytest.raises(UserError, match="refused the request"):
        ServedModel(url, model="m", attempts=1)("a", 1)
    assert checked == [is_checked]
