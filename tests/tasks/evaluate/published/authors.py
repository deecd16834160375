"""What the authors' code computed on the inputs in `tests/data/published`; the files name its revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_schemas.params import EvaluationParams

FACTS = Path(__file__).parents[3] / "data" / "published"


def facts(name: str) -> Any:
    return json.loads((FACTS / f"{name}.json").read_text())


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word and each run of punctuation, as the facts about RULER were computed with; no special tokens."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def asked(*published: str, num_samples: int | None = None, **data: str) -> EvaluationParams:
    """Parameters that ask for published tasks on the committed inputs."""
    given = {name: str(FACTS / f"{name}.json") for name in ("essays", "squad", "hotpotqa")}
    given |= {"lost_in_the_middle": str(FACTS / "middle")}
    return EvaluationParams.model_validate(
        {"published": published, "published_data": given | data, "published_samples": num_samples}
    )
