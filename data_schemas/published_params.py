"""Parameters of tasks and perplexities as published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_schemas.closed import Params

PublishedName = Literal["ruler", "lost_in_the_middle", "yarn", "longlora", "longppl"]


class PublishedDataParams(Params):
    """The authors' data, as files on this machine. Nothing is downloaded."""

    essays: str | None = Field(None, description="For ruler: RULER's PaulGrahamEssays.json.")
    squad: str | None = Field(None, description="For ruler: SQuAD's dev-v2.0.json.")
    hotpotqa: str | None = Field(None, description="For ruler: HotpotQA's hotpot_dev_distractor_v1.json.")
    english_words: str | None = Field(
        None, description="For ruler: RULER's english_words.json. Needed from about 128,000 tokens on."
    )
    lost_in_the_middle: str | None = Field(
        None, description="For lost_in_the_middle: the folder with the authors' qa_data and kv_retrieval_data."
    )
    texts: str | None = Field(
        None,
        description="For yarn, longlora and longppl: a JSONL file of {text}, such as PG19 or Proof-pile. Empty: the held-out "
        "documents, and the figures are not comparable with published ones.",
    )
    longppl_evaluator: str | None = Field(
        None, description="For longppl: the folder of the model that chooses the key tokens, such as Llama 3.1 8B."
    )
