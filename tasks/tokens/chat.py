"""A tokenizer's chat template as the tokens around the messages of a conversation."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tasks.tokens.encoding import encoder_of
from tasks.tokens.special_tokens import special_tokens
from tasks.tokens.template_dates import with_fixed_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ROLES = ("user", "assistant")


def around_messages(
    tokenizer: PreTrainedTokenizerFast, num_messages: int, *, add_generation_prompt: bool = False
) -> list[tuple[int, ...]] | None:
    """Token ids before the first message, between messages, and after the last: num_messages + 1 of them.

    User and assistant take turns, the user first. BOS is among the first ids where the template writes it. None without a template, or
    with one that does not write all messages in turn. A template that asks for today's date gets a fixed one. Text is encoded as it
    continues other text: the space that a tokenizer puts in front of it is left to those who write the whole.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template or (isinstance(template, dict) and "default" not in template):
        return None
    marks = [f"ropeway-message-{number}-" for number in range(num_messages)]
    messages = [{"role": _ROLES[number % 2], "content": mark} for number, mark in enumerate(marks)]
    dated = with_fixed_date(tokenizer.get_chat_template())
    rest = str(
        tokenizer.apply_chat_template(
            messages, chat_template=dated, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )
    texts = []
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        texts.append(before)
    return [_continuing(text, tokenizer) for text in (*texts, rest)]


@lru_cache(maxsize=8)
def opening_with_bos(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """What the chat template writes before the first message, where that is BOS and more; else nothing.

    Text after such a BOS continues the rendered chat. Text after a BOS that the tokenizer adds is the beginning of a text.
    """
    try:
        around = around_messages(tokenizer, 1)
    except Exception:  # a template is a program: it raises whatever it likes, also where no prompt goes through it
        return ()
    opening = around[0] if around else ()
    return opening if len(opening) > 1 and [opening[0]] == special_tokens(tokenizer).opening.tolist() else ()


def _continuing(text: str, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Token ids of a template's text: its control tokens, and the text between them."""
    encoder = encoder_of(tokenizer)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids: list[int] = []
    begun = 0
    for number, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        if encoder.is_control[number]:
            ids += [*encoder.encode_short([text[begun:start]])[0].ids, number]
            begun = end
    return (*ids, *encoder.encode_short([text[begun:]])[0].ids)
