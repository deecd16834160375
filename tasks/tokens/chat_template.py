"""A conversation rendered with a chat template, and where in it the assistant's answers stand.

A template may mark the answers itself, with `{% generation %}` (transformers). Else the conversation is rendered up to each answer,
with the generation prompt, and the answer is what follows. It ends with the control token that the template writes behind it, which a
model must learn in order to stop.

A control token written in a message, such as a literal `</s>`, is text: it never ends a turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.tokens.template_dates import with_fixed_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PRIVATE = (0xE000, 0xF900)  # Unicode's private use area


class NotRendered(Exception):
    """The template cannot render the conversation, or its answers cannot be found. Arguments: reason code, detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, " ".join(detail.split())[:300]


@dataclass(frozen=True)
class Message:
    """One message; `is_learned`: an assistant's answer that training learns."""

    role: str
    content: str
    is_learned: bool = False


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation, and of each learned answer its span of characters, in order.

    `literal`: spans of control tokens' names that messages contain, and that are text.
    """

    text: str
    answers: tuple[Span, ...]
    literal: tuple[Span, ...]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the names that it may use; it can travel to another process.

    source    Jinja text
    names     the tokenizer's special tokens by name, such as `bos_token`
    controls  texts of its special tokens
    closers   what can end a turn: those, and other added tokens that the template names
    """

    source: str
    names: Mapping[str, Any]
    controls: tuple[str, ...]
    closers: tuple[str, ...]

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
        """The tokenizer's own template; None without one."""
        if not getattr(tokenizer, "chat_template", None):
            return None
        try:
            source = str(tokenizer.get_chat_template())
        except ValueError:  # several templates by name, none of which is the default
            return None
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        controls = tuple(text for text, is_special in added.items() if is_special)
        named = tuple(text for text, is_special in added.items() if not is_special and text.strip() and text in source)
        return ChatTemplate(source, dict(tokenizer.special_tokens_map), controls, (*controls, *named))

    def render(self, messages: Sequence[Message]) -> RenderedChat:
        """Raises NotRendered, with the reason template_failed or answer_not_located."""
        private = self._private_characters(messages)
        shown = [Message(m.role, self._disguised(m.content, private), m.is_learned) for m in messages]
        if _MARKS.search(self.source):
            text, marked = self._rendered(shown)
            spans = self._marked(shown, marked)
        else:
            text, _ = self._rendered(shown)
            spans = [self._located(shown, number, text) for number, m in enumerate(shown) if m.is_learned]
        literal = self._literal(text, private)
        for private_character, first in ((b, a) for a, b in private.items()) if literal else ():
            text = text.replace(private_character, first)
        return RenderedChat(text, tuple(spans), literal)

    def _rendered(self, messages: Sequence[Message], *, asks: bool = False) -> tuple[str, list[Span]]:
        """(text, the spans that the template marks); with `asks` the generation prompt follows."""
        from transformers.utils.chat_template_utils import render_jinja_template

        is_marked = bool(_MARKS.search(self.source))
        try:
            rendered: Any = render_jinja_template(
                conversations=[[{"role": m.role, "content": m.content} for m in messages]],
                chat_template=with_fixed_date(self.source),
                add_generation_prompt=asks,
                return_assistant_tokens_mask=is_marked,
                **self.names,
            )
        except Exception as error:  # a template is a program: it raises whatever it likes
            raise NotRendered("template_failed", f"the chat template fails: {type(error).__name__}: {error}") from error
        (text,), marked = rendered
        return str(text), [(int(a), int(b)) for a, b in marked[0]] if is_marked else []

    def _marked(self, messages: Sequence[Message], marked: list[Span]) -> list[Span]:
        of_assistant = [message for message in messages if message.role == "assistant"]
        if len(marked) != len(of_assistant):
            raise NotRendered(
                "answer_not_located",
                f"the chat template marks {len(marked)} of {len(of_assistant)} answers with its generation tags",
            )
        return [span for span, message in zip(marked, of_assistant, strict=True) if message.is_learned]

    def _located(self, messages: Sequence[Message], number: int, text: str) -> Span:
        """The span of the answer `number`: from behind the generation prompt to the control token that ends the turn."""
        content = messages[number].content
        asked, _ = self._rendered(messages[:number], asks=True)
        start: int | None = len(asked)
        if not text.startswith(asked):  # such as a prompt that begins the answer for the model
            asked, _ = self._rendered(messages[:number])
            start = None
        if not text.startswith(asked):
            raise NotRendered(
                "answer_not_located",
                f"the chat template writes what is before message {number + 1} in another way when it ends there",
            )
        at = text.find(content, len(asked)) if start is not None else self._written_at(messages, number, text)
        if at < 0 or not text.startswith(content, at):
            content = content.strip()
            at = text.find(content, len(asked)) if start is not None else at
        if at < 0 or not text.startswith(content, at):
            raise NotRendered("answer_not_located", f"the chat template does not write message {number + 1} as it is")
        end = at + len(content)
        closing = self._closing.match(text, end)
        return at if start is None else start, closing.end() if closing else end

    def _written_at(self, messages: Sequence[Message], number: int, text: str) -> int:
        """Where the template writes message `number`; -1 if it cannot be told. A short answer may also occur in the header before it."""
        everything = self.source + text
        mark = next(chr(code) for code in range(*_PRIVATE) if chr(code) not in everything)
        marked = Message(messages[number].role, mark, messages[number].is_learned)
        shown, _ = self._rendered([*messages[:number], marked, *messages[number + 1 :]])
        at = shown.find(mark)
        return at if at >= 0 and text.startswith(shown[:at]) else -1

    @cached_property
    def control(self) -> re.Pattern[str]:
        return _any_of(self.controls)

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        return re.compile(rf"\s*(?:{_any_of(self.closers).pattern})")

    def _private_characters(self, messages: Sequence[Message]) -> dict[str, str]:
        """By each first character of a control token another one that occurs nowhere: it keeps a literal token apart."""
        everything = self.source + "".join(message.content for message in messages)
        if not self.control.search(everything[len(self.source) :]):
            return {}
        free = (chr(code) for code in range(*_PRIVATE) if chr(code) not in everything)
        return {first: next(free) for first in sorted({control[0] for control in self.controls})}

    def _disguised(self, content: str, private: Mapping[str, str]) -> str:
        """`content` with no control token's name in it, and as long as before."""
        return self.control.sub(lambda found: private[found[0][0]] + found[0][1:], content) if private else content

    def _literal(self, text: str, private: Mapping[str, str]) -> tuple[Span, ...]:
        if not private:
            return ()
        written = _any_of([private[control[0]] + control[1:] for control in self.controls])
        return tuple(found.span() for found in written.finditer(text))


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
