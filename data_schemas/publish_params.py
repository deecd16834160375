"""Parameters of publishing: what is published, where to, and under which conditions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_schemas.closed import Params
from data_schemas.consumers import RunnableId
from data_schemas.credentials import SCHEMA_WITHOUT_CREDENTIALS
from data_schemas.reorder_strategy import ReorderStrategy

CurrentPolicy = Literal["if_better", "always", "never"]

_Destination = Annotated[str, Field(json_schema_extra=SCHEMA_WITHOUT_CREDENTIALS)]


class PublishParams(Params):
    """What is published, where to, and under which conditions."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Name of the release. Empty: the run's name."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Data type of the published weights.")
    shard_gigabytes: float = Field(4.0, gt=0, le=50, description="Largest size of one safetensors file, in GB.")
    destinations: tuple[_Destination, ...] = Field(
        (),
        description="Further places to publish to, besides the storage: a folder, an fsspec URI such as s3://bucket/models, or "
        "hub:org/name for the Hugging Face hub. Credentials come from the environment; the hub's may come from `token_secret`.",
    )
    token_secret: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,200}$",
        description="Name of a Prefect Secret block with the hub's token. The token is never stored. Empty: use HF_TOKEN.",
    )
    signing_key: str | None = Field(
        None,
        min_length=1,
        description="File of the private key that signs the release, as `ropeway keys NAME` makes it. Empty: unsigned; `ropeway sign` "
        "signs later.",
    )
    hub_pull_request: bool = Field(
        False, description="On the hub: open a pull request instead of committing to the main branch."
    )
    hub_private: bool = Field(True, description="On the hub: if the repository does not exist yet, create it as private.")
    reorder_strategy: ReorderStrategy = Field(
        "important_first_last",
        description="Strategy of the reorder config if the evaluation did not measure which order is best.",
    )
    verify_with: tuple[RunnableId, ...] = Field(
        (),
        description="Programs that run the release before it is published, each in its own environment, which is installed the first "
        "time. The model card names them. If one computes something else than was trained, nothing is published.",
    )
    current: CurrentPolicy = Field(
        "if_better",
        description="Whether the new version is served. if_better: if it is shown to work beyond the base's window, and short prompts "
        "stay within `evaluation.non_inferiority_margin`. always: whatever was measured, unless a gate below fails. never: only "
        "`ropeway rollback` serves it. A version that is not served is kept.",
    )
    min_effective_length: int | None = Field(
        None,
        ge=1,
        description="Gate: serve only if the lower bound of the effective context length is at least this many tokens. Empty: not "
        "checked.",
    )
    min_task_scores: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {},
        description="Gate: serve only if the lower bound of each named task's score (0 to 1) at the target length is at least "
        "this, such as {passkey: 0.8}.",
    )
    max_short_context_loss: float | None = Field(
        None,
        gt=0,
        description="Gate: serve only if the upper bound of the rise in perplexity at the base's window is below this share. Empty: "
        "not checked.",
    )
    min_long_context_gain: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Gate: serve only if the lower bound of the fall in perplexity at the target length is at least this share, against "
        "scaling only at that length and against the base at its own window. Empty: not checked.",
    )
