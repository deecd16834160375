"""The base of all parameter models, whose JSON schema the Prefect UI shows as a form."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_WRITTEN_SO = {
    "cpus": "CPUs", "ddp": "DDP", "dora": "DoRA", "fsdp": "FSDP", "gguf": "GGUF", "gpu": "GPU", "heldout": "held-out", "hub": "Hub",
    "lm": "LM", "longppl": "LongPPL", "lora": "LoRA", "mfu": "MFU", "ngram": "n-gram", "num": "number of", "qa": "QA", "ray": "Ray",
    "rope": "RoPE", "rslora": "rsLoRA", "s2": "S²", "spacy": "spaCy", "tflops": "TFLOP/s", "uri": "URI",
}  # fmt: skip


def readable(name: str) -> str:
    """A title for a field's or model's name: `lora_rank` is "LoRA rank", `NearDuplicateParams` "Near duplicate"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("Params")).lower().split("_")
    title = " ".join(_WRITTEN_SO.get(word, word) for word in words)
    return title if words[0] in ("spacy", "ngram", "rslora") else title[0].upper() + title[1:]


class Params(BaseModel):
    """Frozen; unknown names are refused; each field says in `description` what it means.

    Prefect makes its run form from the JSON schema. So each field has its `position` and a readable title, and an optional
    field is one empty input instead of a choice between a type and None. Prefect still accepts null there.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        model_title_generator=lambda model: readable(model.__name__),
        field_title_generator=lambda name, _: readable(name),
    )

    ADDED: ClassVar[frozenset[str]] = frozenset()  # fields that `recorded` leaves out at their default

    def recorded(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """The fields as JSON values, for digests and names of runs. Fields of `ADDED` are in it only where they are set: they were
        added later, and a run that does not use them keeps its digest."""
        unused = {name for name in self.ADDED if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=(exclude or set()) | unused)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        fields = handler.resolve_ref_schema(schema).get("properties", {})
        for position, name in enumerate(fields):
            fields[name] = _without_null(fields[name]) | {"position": position}
            if isinstance(group := fields[name].get("default"), dict):
                fields[name]["default"] = {key: value for key, value in group.items() if value is not None}
        return schema


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field without its null, if null is the default and one other type remains."""
    others = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
    if len(others) != 1 or field.get("default", ...) is not None:
        return field
    return {name: value for name, value in field.items() if name not in ("anyOf", "default")} | others[0]
