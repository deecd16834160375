"""The instruction data of one packing: its rules, its parts, what was left out, and what manifest and card say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.tables import QUARANTINE
from tasks.pack.conversation_job import ConversationRules
from tasks.pack.packer import PackingPlan
from tasks.pack.sequences import Entries
from tasks.tokens.chat_template import ChatTemplate, Message, NotRendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUARANTINE_FILE = "quarantine.parquet"
_PROBE = (Message("user", "How many?"), Message("assistant", "Seven.", True))


def check_instructions(params: PipelineParams, tokenizer: PreTrainedTokenizerFast) -> None:
    """UserError if the corpus has instruction data and the tokenizer has no chat template, or one whose answers cannot be found."""
    conversation_rules(params, tokenizer)


def conversation_rules(params: PipelineParams, tokenizer: PreTrainedTokenizerFast) -> ConversationRules | None:
    """How conversations become sequences; None without instruction data. UserError as `check_instructions`."""
    if not params.corpus.has_instructions:
        return None
    template = ChatTemplate.of(tokenizer)
    labels = ", ".join(source.label for source in params.corpus.sources if source.instructions != "no")
    if template is None:
        raise UserError(
            f"The base model {params.model.base} has no chat template, which the instruction data of {labels} is written with: choose an "
            "instruct base, or give a template in model.chat_template."
        )
    try:
        template.render(_PROBE)
    except NotRendered as problem:
        raise UserError(
            f"The chat template of the base model {params.model.base} cannot be trained on: {problem.detail}; correct the template, for "
            "example by generation tags around its answers."
        ) from problem
    return ConversationRules(template, params.row_tokens, params.packing.long_conversations)


class ConversationSequences:
    """Nothing at all without instruction data."""

    def __init__(self, params: PipelineParams, rules: ConversationRules | None) -> None:
        self.rules = rules
        self._in_full = params.packing.full_attention_conversations
        self._sources = [i for i, source in enumerate(params.corpus.sources) if source.instructions != "no"]
        self.parts: list[int] = []
        self.left_out: dict[tuple[int, str], tuple[int, int, int]] = {}  # (documents, bytes, tokens) by source and reason
        self._refused: list[list[Any]] = []
        self._answers: list[list[int]] = []
        self._num_cut = 0
        self.longest = 0

    def take(self, part: int, told: Mapping[str, Any]) -> None:
        """What `ChunkJob` told of a part; parts come in order."""
        if "answers" not in told:
            return
        self.parts.append(part)
        for source, reason, *numbers in told["left_out"]:
            before = self.left_out.get((source, reason), (0, 0, 0))
            self.left_out[source, reason] = (before[0] + numbers[0], before[1] + numbers[1], before[2] + numbers[2])
        self._refused += told["refused"]
        self._answers += told["answers"]
        self._num_cut += told["cut"]
        self.longest = max(self.longest, told["longest_conversation"])

    @property
    def in_full(self) -> list[int]:
        """The parts whose sequences attend in full."""
        return self.parts if self._in_full else []

    def refuse_none(self) -> None:
        """UserError if there is instruction data and none of it can be trained on."""
        if self.parts and not self._answers and self._refused:
            reason, detail = self._refused[0][2:]
            raise UserError(
                f"None of {len(self._refused):,} conversations can be trained on; the first is left out as {reason}: {detail}; correct "
                "corpus.sources or the chat template."
            )

    def write_quarantine(self, directory: Path) -> None:
        """QUARANTINE rows of the conversations that were left out, if there is instruction data."""
        if self.parts:
            columns = dict(zip(QUARANTINE.names, zip(*self._refused, strict=True), strict=True)) if self._refused else {}
            table = pa.table({name: list(columns.get(name, ())) for name in QUARANTINE.names}, schema=QUARANTINE)
            pq.write_table(table, directory / QUARANTINE_FILE, compression="zstd")

    def report(self, plan: PackingPlan, entries: Entries) -> dict[str, Any] | None:
        """For manifest and card: what of it is in the rows. `entries` are all training sequences. None without instruction data."""
        if not self.parts:
            return None
        places = np.flatnonzero(np.isin(entries.sources, self._sources))
        uses, answers = plan.uses[places].astype(np.int64), np.array(self._answers, np.int64).reshape(-1, 2)
        tokens, learned = int(uses @ entries.lengths[places].astype(np.int64)), int(uses @ answers[:, 0])
        reasons: Counter[str] = Counter()
        for _, _, reason, _ in self._refused:
            reasons[reason] += 1
        targets = plan.num_tokens - int(plan.uses.sum(dtype=np.int64))
        of_conversations = tokens - int(uses.sum())
        return {
            "conversations": int(uses.sum()),
            "tokens": tokens,
            "share": tokens / max(1, plan.num_tokens),
            "answer_tokens": learned,
            "answers": int(uses @ answers[:, 1]),
            "cut": self._num_cut,
            "left_out": dict(sorted(reasons.items())),
            "full_attention": self._in_full,
            "mean_loss_weight": 1 - (of_conversations - learned) / max(1, targets),
        }

    def warnings(self) -> list[str]:
        """What was left out, in a sentence."""
        if not self._refused:
            return []
        reasons = Counter(reason for _, _, reason, _ in self._refused)
        told = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))
        return [f"{len(self._refused):,} conversations are left out ({told}): {QUARANTINE_FILE} of the shards lists them"]
