"""LangChain: a document transformer. Needs the extra `langchain`.

>>> retriever_output = RopewayReorder("releases/my-model").transform_documents(documents)

LangChain's own LongContextReorder puts the best document last if their number is even; this puts it where the
release's config says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import BaseDocumentTransformer, Document

from tasks.reorder.apply import ChunkReorder
from tasks.reorder.options import ReorderOptions


class RopewayReorder(BaseDocumentTransformer):
    """Puts documents, best first or with a `relevance_score` or `score` in their metadata, into prompt order.

    `options` are fields of `ReorderOptions`. Keywords of `transform_documents`, such as `budget_tokens`, override them.
    """

    def __init__(self, config: ChunkReorder | str | Path, *, budget_tokens: int | None = None, **options: Any) -> None:
        self.reorder = config if isinstance(config, ChunkReorder) else ChunkReorder.load(config)
        self.budget_tokens = budget_tokens
        self.options = ReorderOptions(**options)

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """The documents in prompt order. Instructions and question are not documents: they only count in the budget."""
        budget = kwargs.pop("budget_tokens", self.budget_tokens)
        return self.reorder.arrange(documents, budget, options=self.options, **kwargs).passages
