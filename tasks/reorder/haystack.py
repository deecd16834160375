"""Haystack: a pipeline component. Needs the extra `haystack`.

>>> pipeline.add_component("reorder", RopewayReorder("releases/my-model"))
>>> pipeline.connect("retriever.documents", "reorder.documents")

A pipeline with it can be written as YAML. Haystack loads components of other packages only if that is allowed:
`Pipeline.loads(text, allowed_modules=["tasks.reorder.haystack"])`, with the module of `count_tokens` if there is one.
"""

from __future__ import annotations

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import deserialize_callable, serialize_callable

from tasks.reorder.apply import ChunkReorder
from tasks.reorder.options import ReorderOptions


@component
class RopewayReorder:
    """Puts documents, best first or with scores, into prompt order.

    `config` is a `chunk_reorder.json` or the folder of a release, and `options` are fields of `ReorderOptions`. To write the pipeline
    as YAML, `count_tokens` must be a function of a module.
    """

    def __init__(self, config: str, budget_tokens: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.config = config
        self.budget_tokens = budget_tokens
        self.options = dict(options or {})
        self._reorder = ChunkReorder.load(config)
        self._options = ReorderOptions(**self.options)

    # the annotations are types, not strings, because Haystack reads them: the return type is its own
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], budget_tokens: int | None = None) -> dict[str, list[Document]]:
        """The documents in prompt order; `budget_tokens` overrides that of the component."""
        budget = self.budget_tokens if budget_tokens is None else budget_tokens
        return {"documents": self._reorder.arrange(documents, budget, options=self._options).passages}

    def to_dict(self) -> dict[str, Any]:
        """The form that Haystack writes to YAML."""
        options = dict(self.options)
        if options.get("count_tokens") is not None:
            options["count_tokens"] = serialize_callable(options["count_tokens"])
        return default_to_dict(self, config=self.config, budget_tokens=self.budget_tokens, options=options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RopewayReorder:
        """The component from the form that `to_dict` gives."""
        init = dict(data["init_parameters"])
        init["options"] = dict(init.get("options") or {})
        if isinstance(init["options"].get("count_tokens"), str):
            init["options"]["count_tokens"] = deserialize_callable(init["options"]["count_tokens"])
        return default_from_dict(cls, data | {"init_parameters": init})
