"""Whether every id of a base's tokenizer has a row in its embeddings. The embeddings may have more rows: many are padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_schemas.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast


def refuse_unknown_ids(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig, base: str) -> None:
    """UserError for a tokenizer with ids that the model does not know, as after tokens were added to one and not to the other."""
    known, largest = int(config.get_text_config().vocab_size), max(tokenizer.get_vocab().values(), default=0)
    if largest >= known:
        raise UserError(
            f"The tokenizer of base model {base} has ids up to {largest:,}, but the model has only {known:,} embeddings: enlarge them with "
            "resize_token_embeddings and save both together, or give the tokenizer that the model was trained with."
        )
