"""Parameters of the base model and its extension."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from data_schemas.closed import Params
from data_schemas.consumers import ServableId, current_id

# Runs and schedules that were written with an old id keep working.
Servable = Annotated[ServableId, BeforeValidator(current_id, json_schema_input_type=Literal[ServableId, "transformers>=5"])]
RopeMethod = Literal["auto", "linear", "dynamic", "ntk", "yarn", "longrope", "llama3", "theta"]


class ModelParams(Params):
    """The base model, and the context length to extend it to."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"chat_template", "window", "rope_theta", "rope_length"})

    base: str = Field(
        min_length=1, description="A model folder, a hub id such as org/name, or `demo` for the base that comes with Ropeway."
    )
    revision: str | None = Field(
        None, description="Hub revision of `base`. Only a commit hash makes the run reproducible. Empty: the latest."
    )
    base_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=193,
        description="Hub id of a base that was downloaded to a folder, for the release's model card. Empty: the card names no base on "
        "the hub.",
    )
    gguf_file: str | None = Field(
        None, description="Name of a GGUF file in `base` to load the weights from. Empty: load safetensors."
    )
    chat_template: str | None = Field(
        None,
        description="A file with a chat template (Jinja) for a base without one, or in place of its own; the release gets it. Instruction "
        "data needs one. Empty: the base's own.",
    )
    licence: str | None = Field(None, description="SPDX name of the base model's licence. Empty: taken from its model card.")
    window: int | None = Field(
        None,
        ge=16,
        le=16_777_216,
        description="Context length in tokens that the base works up to, where its config.json can be read in two ways: for example 16384 "
        "for deepseek-coder, whose maximum includes its linear scaling. Empty: read from the config.",
    )
    target_length: int = Field(ge=32, le=16_777_216, description="Context length to reach, in tokens.")
    rope_method: RopeMethod = Field(
        "auto", description="How RoPE frequencies are scaled for the longer context. auto: Ropeway chooses and says why."
    )
    rope_factors_file: str | None = Field(
        None,
        description="For longrope: path or URI of a JSON file with `short_factor` and `long_factor`. Empty: they are searched first, see "
        "`rope_search`.",
    )
    rope_theta: float | None = Field(
        None,
        gt=1,
        le=1e15,
        description="For theta: the new base frequency of RoPE, `rope_theta`. With rope_method auto it chooses theta.",
    )
    rope_length: int | None = Field(
        None,
        ge=32,
        le=16_777_216,
        description="Context length in tokens that RoPE is scaled for, target_length or more. More helps recall from the far end of the "
        "window, because a base saw few tokens that are nearly its whole window apart; it costs some perplexity before training. For "
        "yarn, ntk and llama3. Empty: target_length.",
    )
    serve_with: tuple[Servable, ...] = Field(
        (),
        description="Programs that must read the RoPE scaling correctly. A method that one of them misreads is refused. Empty: no "
        "check.",
    )
