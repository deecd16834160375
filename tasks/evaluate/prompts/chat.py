"""Whether tasks are asked through the base's chat template, and the tokens that it puts around a question.

A task's question ends with the words that begin its answer, such as "The pass key is". In a chat these are the beginning of the
assistant's message, as RULER (arXiv 2404.06654) does it with its answer prefix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.evaluate.prompts.pieces import ChatTurn
from tasks.tokens.chat import around_messages
from tasks.tokens.special_tokens import special_tokens


def asked_chat(params: PipelineParams, tokenizer: Any) -> ChatTurn | None:
    """The turn that `evaluation.chat_template` asks for; None for plain prompts.

    UserError if it is on and the base has no chat template that writes a user's message as it is.
    """
    chosen = params.evaluation.chat_template
    if chosen == "off" or (chosen == "auto" and not params.corpus.has_instructions):
        return None
    turn = chat_turn(tokenizer, special_tokens(tokenizer).opening)
    if turn is None and chosen == "on":
        raise UserError(
            f"evaluation.chat_template is on, but the base model {params.model.base} has no chat template that writes a user's message as "
            "it is: choose an instruct base, or set evaluation.chat_template to off."
        )
    return turn


def chat_turn(tokenizer: Any, bos: np.ndarray) -> ChatTurn | None:
    """The tokenizer's chat template around one message, `bos` int32 [0 or 1] in front where it does not write it; None without one."""
    around = around_messages(tokenizer, 1, add_generation_prompt=True)
    if around is None:
        return None
    before, after = (np.asarray(ids, np.int32) for ids in around)
    opens = [] if len(bos) and len(before) and before[0] == bos[0] else [bos]
    return ChatTurn(np.concatenate([*opens, before]), after)
