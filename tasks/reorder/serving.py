"""How to serve a release: what its `serving_advice.json` and `chunk_reorder.json` say together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import UserError
from data_schemas.releases import resolve_release
from data_schemas.reorder import ChunkingAdvice, ReorderConfig
from data_schemas.reorder_strategy import ReorderStrategy
from data_schemas.serving_advice import ADVICE_FILE_NAME, AdviceArm, QuestionKind, Retriever, ServingAdvice, Way, read_advice
from tasks.reorder.advised import ARM_NAMES, advised_passages, cheap_way, most_advised


@dataclass(frozen=True)
class HowToServe:
    """What to do with a question on a document.

    Args:
        arm: the model that answers, by name: the release is `fine_tuned`. None: not measured. `other_model` says what another one means.
        way: `full`, `chunks`, `map_reduce`, `refine` or `route`. Without a measurement it is `chunks`.
        chunking: how to cut documents into passages.
        retriever: what finds them; None: not measured, so any.
        embedding_model: of the retriever `embedding`: name of the encoder's folder.
        k: passages in a prompt at most; None: as many as fit.
        budget_tokens: tokens of all passages in a prompt at most; None: what the window leaves.
        order: of the passages in the prompt, as measured with them; it can differ from the config's, so give it to `ChunkReorder` as
            `strategy`.
        window: longest prompt and answer in tokens.
        threshold: of `route`: where the mean log-probability of the first answer's tokens is below it, in nats, ask about the whole
            document too.
        is_measured: whether questions were asked; otherwise the lengths of the documents or rules say so.
        reason: for people.
        answer_tokens: longest answer in tokens, over which the threshold is a mean; None: not measured.
        part_tokens, note_tokens: of `map_reduce` and `refine`: largest part of the document, and longest note on one.
    """

    arm: AdviceArm | None
    way: Way
    chunking: ChunkingAdvice
    retriever: Retriever | None
    k: int | None
    budget_tokens: int | None
    order: ReorderStrategy
    window: int
    threshold: float | None
    is_measured: bool
    reason: str
    answer_tokens: int | None = None
    part_tokens: int | None = None
    note_tokens: int | None = None
    embedding_model: str | None = None

    @property
    def other_model(self) -> str:
        """For people: that the advice is for another model than the release; empty if it is not."""
        if self.arm in (None, "fine_tuned"):
            return ""
        return f"The advice is for the {ARM_NAMES[self.arm]}: serve that instead of the release, which is the fine-tuned model."

    def asks_long(self, mean_logprob: float) -> bool:
        """Of `route`: whether an answer with this mean log-probability of its tokens, in nats, is too unlikely to stay."""
        return self.way == "route" and self.threshold is not None and mean_logprob < self.threshold


def how_to_serve(config: ReorderConfig, advice: ServingAdvice | None = None, kind: QuestionKind | None = None) -> HowToServe:
    """For a kind of question; None: the way that is advised for most questions.

    Without an advice, or for a kind that was not measured, passages are cut as the config says.
    """
    way = None if advice is None else advice.for_kind(kind) if kind else most_advised(advice)
    if advice is None or way is None:
        why = "has no serving_advice.json" if advice is None else f"was not measured on questions of the kind {kind}"
        return HowToServe(
            arm=None,
            way="chunks",
            chunking=config.chunking,
            retriever=None,
            k=None,
            budget_tokens=None,
            order=config.strategy,
            window=config.context_length,
            threshold=None,
            is_measured=False,
            reason=f"The release {why}: passages are cut as chunk_reorder.json says.",
        )
    passages, advised = cheap_way(advice, way), advised_passages(advice)
    settings = passages.retrieval if passages else advised.settings if advised else None
    return HowToServe(
        arm=way.arm,
        way=way.way,
        chunking=settings.chunking if settings else config.chunking,
        retriever=settings.retriever if settings else None,
        embedding_model=settings.embedding_model if settings else None,
        k=settings.k if settings else None,
        budget_tokens=settings.budget_tokens if settings else None,
        order=settings.order if settings else config.strategy,
        window=way.window,
        threshold=way.threshold,
        is_measured=bool(advice.results),
        answer_tokens=way.answer_tokens or (passages.answer_tokens if passages else None),
        part_tokens=way.part_tokens,
        note_tokens=way.note_tokens,
        reason=next((one.sentence for one in advice.advice if one.kind == kind), advice.overall),
    )


def advice_beside(path: Path) -> ServingAdvice | None:
    """The advice in the folder of a release, or beside a `chunk_reorder.json`; None without one.

    A file that cannot be read as an advice is said in a warning and counts as none.
    """
    file = (resolve_release(path) if path.is_dir() else path.parent) / ADVICE_FILE_NAME
    if not file.is_file():
        return None
    try:
        advice = read_advice(file)
        for name in (
            *(one.way for one in advice.advice),
            *(step for way in advice.ways for step in (way.cheap, way.long) if step),
        ):
            advice.way(name)
    except UserError as error:
        warnings.warn(f"{error} The release is used without its advice.", stacklevel=3)
    except KeyError as error:
        warnings.warn(
            f"{file} names the way {error}, which it does not describe; the release is used without it.", stacklevel=3
        )
    else:
        return advice
    return None
