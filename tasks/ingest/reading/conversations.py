"""The conversation in one record: OpenAI's `messages`, ShareGPT's `conversations`, or Alpaca's `instruction`, `input` and `output`.

A conversation is a system message or none, then a user's and an assistant's messages in turn, the user's first. Its text is the
contents joined by blank lines, so duplicates and evaluated text are found in it as in any document. With `context_field`, a
document is part of the first question, as in LongAlpaca (arXiv 2309.12307, section 4.3).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_schemas.params import CorpusSource
from tasks.ingest.reading.records import Turn, Unusable

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
_LISTS = {"messages": ("messages",), "sharegpt": ("conversations",), "auto": ("messages", "conversations")}
_ALPACA = ("instruction", "input", "output")
_SYSTEM = "system"  # a field of ShareGPT's and Alpaca's records
_BETWEEN = "\n\n"
Span = tuple[int, int]


@dataclass(frozen=True)
class Conversation:
    """The text of all messages, and the spans of characters of each and of the context."""

    text: str
    turns: tuple[Turn, ...]
    context: Span | None


@dataclass(frozen=True)
class _Message:
    role: str
    content: str
    is_learned: bool


def conversation_of(fields: Mapping[str, Any], source: CorpusSource) -> Conversation:
    """The conversation of a record. Raises Unusable for one that training cannot learn from, with the reason."""
    messages = _messages(fields, source)
    _refuse_disorder(messages)
    context = value_at(fields, source.context_field) if source.context_field else None
    if context is not None and not isinstance(context, str):
        raise Unusable("not_text", f"the field {source.context_field!r} holds a {type(context).__name__}")
    first = next(number for number, message in enumerate(messages) if message.role == "user")
    text, turns, at_context = "", [], None
    for number, message in enumerate(messages):
        text += _BETWEEN if number else ""
        content = message.content
        if context and number == first:
            content, offset = _with_context(source.context_prompt, context, content)
            at_context = (len(text) + offset, len(text) + offset + len(context))
        turns.append(Turn(message.role, len(text), len(text) + len(content), message.is_learned))
        text += content
    return Conversation(text, tuple(turns), at_context)


def conversation_columns(names: Sequence[str], source: CorpusSource) -> list[str]:
    """Those of a table's columns that hold a conversation, and its document."""
    wanted = {source.messages_field, source.messages_field.split(".")[0], _SYSTEM, *_LISTS["auto"], *_ALPACA}
    wanted |= {source.context_field, source.context_field.split(".")[0]}
    return [name for name in names if name in wanted and names.count(name) == 1]


def hint(fields: Mapping[str, Any]) -> str:
    """What to set where a record, or a table's columns, without the text field hold conversations; else empty."""
    holds_one = any(name in fields for name in _LISTS["auto"]) or {"instruction", "output"} <= fields.keys()
    return "; it holds a conversation: set the source's instructions to auto" if holds_one else ""


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or at a path such as `a.b`; a field of the path's whole name comes first. Raises Unusable."""
    if path in fields:
        return fields[path]
    found: Any = fields
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise Unusable("missing_text", f"no field {path!r}")
        found = found[name]
    return found


def _messages(fields: Mapping[str, Any], source: CorpusSource) -> list[_Message]:
    named = source.instructions
    listed = source.messages_field or next((name for name in _LISTS.get(named, ()) if fields.get(name) is not None), "")
    if listed:
        messages = _of_list(value_at(fields, listed), listed)
    elif named in ("alpaca", "auto") and fields.get("instruction") is not None:
        messages = _of_alpaca(fields)
    else:
        wanted = "instruction and output" if named == "alpaca" else " or ".join(_LISTS[named])
        raise Unusable("no_messages", f"no {wanted}: name the list in messages_field, or correct instructions")
    system = fields.get(_SYSTEM)
    if isinstance(system, str) and system and messages and messages[0].role != "system":
        messages.insert(0, _Message("system", system, False))
    return messages


def _of_list(value: Any, field: str) -> list[_Message]:
    if isinstance(value, str):  # as some tables store them
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Unusable("no_messages", f"the field {field!r} holds text that is not JSON: {error}") from error
    if not isinstance(value, list) or not value:
        raise Unusable("no_messages", f"the field {field!r} holds no list of messages")
    return [_message(number, one) for number, one in enumerate(value, 1)]


def _message(number: int, one: Any) -> _Message:
    if not isinstance(one, Mapping):
        raise Unusable("no_role", f"message {number} is a {type(one).__name__} without a role")
    named = one.get("role", one.get("from"))
    if not isinstance(named, str) or not named:
        raise Unusable("no_role", f"message {number} has no role: give each a role, or a from")
    role = _ROLES.get(named.lower())
    if role is None:
        raise Unusable("unknown_role", f"message {number} is of {named!r}: only system, user and assistant are learned from")
    if one.get("tool_calls") or one.get("function_call"):
        raise Unusable("not_text", f"message {number} calls a tool: leave such records out")
    weight = one.get("weight")
    if weight not in (None, 0, 1):
        raise Unusable("unknown_weight", f"message {number} has the weight {weight!r}: 0 and 1 are known")
    content = _content(number, one.get("content", one.get("value")))
    return _Message(role, content, role == "assistant" and weight != 0)


def _content(number: int, value: Any) -> str:
    """A string, or OpenAI's list of parts that are all text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
        return "".join(part["text"] for part in value)
    raise Unusable("not_text", f"the content of message {number} is not text but a {type(value).__name__}")


def _of_alpaca(fields: Mapping[str, Any]) -> list[_Message]:
    texts = [fields.get(name) or "" for name in _ALPACA]
    for name, text in zip(_ALPACA, texts, strict=True):
        if not isinstance(text, str):
            raise Unusable("not_text", f"the field {name!r} holds a {type(text).__name__}")
    instruction, further, output = texts
    question = instruction + (_BETWEEN + further if further.strip() else "")
    return [_Message("user", question, False), _Message("assistant", output, True)]


def _refuse_disorder(messages: Sequence[_Message]) -> None:
    talk = [message.role for message in messages[1:]] if messages[0].role == "system" else [m.role for m in messages]
    first = len(messages) - len(talk) + 1
    for place, role in enumerate(talk):
        wanted = ("user", "assistant")[place % 2]
        if role != wanted:
            before = f"after one of the {talk[place - 1]}" if place else "first"
            raise Unusable(
                "roles_out_of_order",
                f"message {first + place} is of the {role} {before}, where the {wanted}'s must stand: user and assistant take turns",
            )
    for number, message in enumerate(messages, 1):
        if message.role == "assistant" and message.is_learned and not message.content.strip():
            raise Unusable("no_answer", f"message {number}, of the assistant, is empty")
    if not any(message.is_learned for message in messages):
        raise Unusable("no_answer", "no message of the assistant to learn")


def _with_context(prompt: str, context: str, question: str) -> tuple[str, int]:
    """(the message, the character at which the context begins)."""
    written, at = "", 0
    for piece in re.split(r"(\{context\}|\{question\})", prompt):
        at = len(written) if piece == "{context}" else at
        written += {"{context}": context, "{question}": question}.get(piece, piece)
    return written, at
