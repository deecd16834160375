"""A tokenizer's chat template as the tokens around the messages of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.tokens.template_dates import with_fixed_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ROLES = ("user", "assistant")


def around_messages(
    tokenizer: PreTrainedTokenizerFast, num_messages: int, *, add_generation_prompt: bool = False
) -> list[tuple[int, ...]] | None:
    """Token ids before the first message, between messages, and after the last: num_messages + 1 of them.

    User and assistant take turns, the user first. BOS is among the first ids where the template writes it. None without a template, or
    with one that does not write all messages in turn. A template that asks for today's date gets a fixed one.
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
    return [tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in (*texts, rest)]
