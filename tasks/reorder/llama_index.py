"""LlamaIndex: a node postprocessor. Needs the extra `llama-index`.

>>> query_engine = index.as_query_engine(node_postprocessors=[RopewayReorder(config="releases/my-model")])

LlamaIndex's own LongContextReorder puts the best node last if their number is even; this puts it where the
release's config says.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from tasks.reorder.apply import ChunkReorder
from tasks.reorder.options import ReorderOptions


class RopewayReorder(BaseNodePostprocessor):
    """Puts nodes, best first or with scores, into prompt order."""

    config: str = Field(description="A chunk_reorder.json, or the folder of a release.")
    budget_tokens: int | None = Field(default=None, description="Most tokens of all nodes together; empty: no limit.")
    options: dict[str, Any] = Field(default_factory=dict, description="Fields of ReorderOptions.")
    _reorder: ChunkReorder = PrivateAttr()
    _options: ReorderOptions = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._reorder = ChunkReorder.load(self.config)
        self._options = ReorderOptions(**self.options)

    @classmethod
    def class_name(cls) -> str:
        return "RopewayReorder"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        return self._reorder.arrange(nodes, self.budget_tokens, options=self._options).passages
