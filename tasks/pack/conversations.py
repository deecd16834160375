"""A conversation as one training sequence: the tokens of the rendered chat, and which of them are answers.

Its tokens are those that the tokenizer gives the rendered text. BOS comes first where the base was trained with it and the
template does not write it; EOS ends it where no control token does. A conversation is never cut into pieces. One that is longer than a
row is refused, or the end of the document that it asks about is left out until it fits (`packing.long_conversations`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.packing_params import LongConversations
from tasks.tokens.chat_template import ChatTemplate, Message, NotRendered, RenderedChat
from tasks.tokens.encoding import Encoder
from tasks.tokens.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TOO_LONG, CONTEXT_CUT = "too_long", "context cut"
_TRIES = 12  # of a cut
_ENOUGH = 64  # a row may have a 64th of its places left after a cut


@dataclass(frozen=True)
class Conversation:
    """Messages, and the span of characters of the first user's message that is a document."""

    messages: tuple[Message, ...]
    context: tuple[int, int] | None = None

    @staticmethod
    def of(row: Mapping[str, Any]) -> Conversation:
        """The conversation of a row of CONVERSATIONS."""
        text, turns = row["text"], row["turns"]
        messages = tuple(Message(t["role"], text[t["start"] : t["end"]], t["is_learned"]) for t in turns)
        if row["context_start"] is None:
            return Conversation(messages)
        begun = next(turn["start"] for turn in turns if turn["role"] == "user")
        return Conversation(messages, (row["context_start"] - begun, row["context_end"] - begun))

    def shortened(self, num_chars: int) -> Conversation:
        """With the first `num_chars` characters of its document alone."""
        if self.context is None:
            raise ValueError("the conversation has no document to cut")
        start, end = self.context
        place = next(i for i, message in enumerate(self.messages) if message.role == "user")
        content = self.messages[place].content
        kept = replace(self.messages[place], content=content[: start + num_chars] + content[end:])
        return Conversation((*self.messages[:place], kept, *self.messages[place + 1 :]), (start, start + num_chars))


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation as tokens: `ids` int32 [tokens], `is_answer` bool [tokens], and how many answers they hold.

    whole_tokens  tokens before its document was cut
    cut_bytes     bytes of text that were left out of its document
    """

    ids: np.ndarray
    is_answer: np.ndarray
    num_answers: int
    whole_tokens: int
    cut_bytes: int = 0


class ConversationEncoder:
    """Encodes conversations with one tokenizer and template."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, special: SpecialTokens) -> None:
        self._tokenizer, self._template, self._special = tokenizer, template, special
        self._encoder = Encoder(tokenizer)
        self._is_closer = np.zeros(tokenizer.get_vocab_size(), bool)
        self._is_closer[[number for text in template.closers if (number := tokenizer.token_to_id(text)) is not None]] = True

        added = tokenizer.get_added_tokens_decoder().values()
        self._takes_space = {token.content: (token.lstrip, token.rstrip) for token in added}

    def encode(self, conversation: Conversation, most_tokens: int, long: LongConversations) -> EncodedConversation:
        """NotRendered, with its reason, for one that the template cannot render, whose answers it hides, or that is too long."""
        whole = self._encoded(conversation)
        if len(whole.ids) <= most_tokens:
            return whole
        told = f"{len(whole.ids):,} tokens, more than a row of {most_tokens:,}"
        if long == "quarantine":
            raise NotRendered(TOO_LONG, f"{told}: raise model.target_length, or set packing.long_conversations to cut_context")
        if conversation.context is None:
            raise NotRendered(TOO_LONG, f"{told}, and it has no document to cut: name its field in context_field")
        return self._cut(conversation, whole, most_tokens, told)

    def _cut(self, conversation: Conversation, whole: EncodedConversation, most_tokens: int, told: str) -> EncodedConversation:
        """The longest beginning of the document that a few tries find to fit; refused if that is nothing."""
        assert conversation.context is not None
        start, end = conversation.context
        fits, too_long = 0, end - start
        best: EncodedConversation | None = None
        num_chars = (end - start) * most_tokens // len(whole.ids)
        for _ in range(_TRIES):
            if too_long - fits <= 1:
                break
            num_chars = min(max(num_chars, fits + 1), too_long - 1)
            tried = self._encoded(conversation.shortened(num_chars))
            spare = most_tokens - len(tried.ids)
            if spare >= 0:
                fits, best = num_chars, tried
                if spare * _ENOUGH <= most_tokens:
                    break
            else:
                too_long = num_chars
            num_chars += int(spare * (end - start) / len(whole.ids))
            if not fits < num_chars < too_long:
                num_chars = (fits + too_long) // 2
        if best is None:
            raise NotRendered(TOO_LONG, f"{told}, even without its document")
        first = next(message for message in conversation.messages if message.role == "user")
        left_out = first.content[start + fits : end]
        return replace(best, whole_tokens=len(whole.ids), cut_bytes=len(left_out.encode()))

    def _encoded(self, conversation: Conversation) -> EncodedConversation:
        rendered = self._template.render(conversation.messages)
        ids, is_answer = self._tokens(rendered)
        opening = self._special.opening
        if len(opening) and (not len(ids) or ids[0] != opening[0]):
            ids, is_answer = np.concatenate([opening, ids]), np.concatenate([[False], is_answer])
        eos = self._special.eos
        last = conversation.messages[-1]
        after = int(np.flatnonzero(is_answer)[-1]) if is_answer.any() else len(ids)
        if eos is not None and last.role == "assistant" and not self._is_closer[ids[after:]].any():
            ids, is_answer = np.append(ids, np.int32(eos)), np.append(is_answer, last.is_learned)
        return EncodedConversation(ids, is_answer, len(rendered.answers), len(ids))

    def _tokens(self, rendered: RenderedChat) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 [tokens], which hold a character of an answer bool [tokens])."""
        spans: list[tuple[int, int]] = []
        ids: list[int] = []
        for start, encoding in self._encodings(rendered):
            ids += encoding.ids
            spans += [(start + a, start + b) for a, b in encoding.offsets]
        places = np.array(spans, np.int64).reshape(-1, 2)
        is_answer = np.zeros(len(ids), bool)
        for start, end in rendered.answers:
            is_answer |= (places[:, 0] < end) & (places[:, 1] > start)
        return np.array(ids, np.int32), is_answer

    def _encodings(self, rendered: RenderedChat) -> list[tuple[int, Encoding]]:
        """(its first character, a piece encoded): the whole text, or the text between control tokens where some are literal."""
        if not rendered.literal:
            return [(0, self._tokenizer.encode(rendered.text, add_special_tokens=False))]
        inside = np.zeros(len(rendered.text), bool)
        for start, end in rendered.literal:
            inside[start:end] = True
        pieces: list[tuple[int, Encoding]] = []
        begun, is_start = 0, True
        for found in self._template.control.finditer(rendered.text):
            if inside[found.start()]:
                continue
            start, end = self._with_space(rendered.text, begun, found)
            pieces += self._plain(rendered.text, begun, start, is_start)
            pieces.append((start, self._tokenizer.encode(rendered.text[start:end], add_special_tokens=False)))
            begun, is_start = end, self._encoder.begins_anew(pieces[-1][1].ids[-1])
        return pieces + self._plain(rendered.text, begun, len(rendered.text), is_start)

    def _with_space(self, text: str, begun: int, control: re.Match[str]) -> tuple[int, int]:
        """The span of a control token with the white space that it takes, on its left after `begun` or on its right."""
        left, right = self._takes_space.get(control[0], (False, False))
        start = begun + len(text[begun : control.start()].rstrip()) if left else control.start()
        end = len(text) - len(text[control.end() :].lstrip()) if right else control.end()
        return start, end

    def _plain(self, text: str, start: int, end: int, is_start: bool) -> list[tuple[int, Encoding]]:
        return [(start, self._encoder.encode_short([text[start:end]], is_start=is_start)[0])] if start < end else []
