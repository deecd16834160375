"""One question answered in one way, by calls of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_schemas.errors import UserError
from data_schemas.reorder import ChunkingAdvice
from data_schemas.serving_advice import ServingWay
from tasks.advise.calls import Asked, Call, Counted, Model
from tasks.advise.prompting import REFINE_FORM, Prompting
from tasks.advise.retrieval import Passages
from tasks.reorder.map_reduce import SEPARATOR, map_reduce

PART_CUT = "semantic"


@dataclass(frozen=True)
class Answering:
    """Answers questions in any way but `route`, which is computed from two others.

    `weighs_itself`: whether passages are asked with the log-probability of the model's own answer, as `route` needs it.
    """

    model: Model
    prompting: Prompting
    passages: Passages
    weighs_itself: bool

    def answer(self, way: ServingWay, document: str, question: str, right: str) -> Asked:
        """The answer, or why the question cannot be asked in this way: the prompt does not fit the window, or parts never join.

        UserError where the model or the retriever fails: that says nothing about the way.
        """
        counted = Counted(self.model)
        try:
            call = self._last_call(way, counted, document, question, right)
        except _DoesNotFitError as error:
            return Asked(why_not=str(error))
        return counted.asked(counted.ask(call))

    def _last_call(self, way: ServingWay, model: Counted, document: str, question: str, right: str) -> Call:
        if way.way == "full":
            context = document
        elif way.way == "chunks":
            assert way.retrieval is not None
            context = SEPARATOR.join(self.passages.in_prompt_order(document, question, way.retrieval))
        elif way.way == "map_reduce":
            context = self._map_reduced(way, model, document, question)
        else:
            context = self._refined(way, model, document, question)
        weighs = self.weighs_itself and way.way == "chunks"
        return self._fitting(way, self.prompting.answering(context, question, right, weighs_itself=weighs))

    def _fitting(self, way: ServingWay, call: Call) -> Call:
        if (needed := self.prompting.num_needed(call)) > way.window:
            raise _DoesNotFitError(f"prompt and answer have {needed} tokens, and the window {way.window}")
        return call

    def _notes(self, way: ServingWay, model: Counted, texts: Sequence[str], question: str) -> list[str]:
        calls = [self._fitting(way, self.prompting.noting(text, question)) for text in texts]
        return [reply.text.strip() for reply in model.ask_all(calls)]

    def _map_reduced(self, way: ServingWay, model: Counted, document: str, question: str) -> str:
        """The notes on all parts, joined to one text that fits the budget of a part."""

        def combine(notes: Sequence[str]) -> str:
            try:
                return self._notes(way, model, [SEPARATOR.join(notes)], question)[0]
            except UserError as error:
                raise _ModelFailedError(error) from error

        parts = list(self._parts(way, document))
        note_on = dict(zip(parts, self._notes(way, model, parts, question), strict=True))  # all parts at once

        assert way.part_tokens is not None
        try:
            result = map_reduce(
                document,
                process=note_on.__getitem__,
                combine=combine,
                count_tokens=self.prompting.num_tokens,
                window_tokens=way.part_tokens,
                chunk=lambda _: parts,
            )
        except _ModelFailedError as failed:
            raise failed.error from failed
        except UserError as error:
            raise _DoesNotFitError(f"notes cannot be joined: {error}") from error
        return result.text

    def _refined(self, way: ServingWay, model: Counted, document: str, question: str) -> str:
        """One note, written anew with each part of the document in its order."""
        notes = ""
        for part in self._parts(way, document):
            text = REFINE_FORM.format(notes=notes, text=part) if notes else part
            notes = self._notes(way, model, [text], question)[0]
        return notes

    def _parts(self, way: ServingWay, document: str) -> Sequence[str]:
        assert way.part_tokens is not None
        return self.passages.cut(document, ChunkingAdvice(strategy=PART_CUT, max_tokens=way.part_tokens, overlap_fraction=0.0))


class _DoesNotFitError(Exception):
    """A prompt and its answer are longer than the window, or notes cannot be joined within it."""


class _ModelFailedError(Exception):
    """Carries an error of the model past the errors of `map_reduce`."""

    def __init__(self, error: UserError) -> None:
        super().__init__(str(error))
        self.error = error
