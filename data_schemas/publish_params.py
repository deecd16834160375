"""What is published, where to, and under which conditions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_schemas.closed import Params

ReorderStrategy = Literal["important_first_last", "reverse_rank", "calibrated", "none"]


class PublishParams(Params):
    """What leaves the house, and under which conditions."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", description="Release name; empty: the run's name."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Type of the published weights.")
    shard_gigabytes: float = Field(
        4.0, gt=0, le=50, description="Size of one safetensors file of the published weights, at most."
    )
    destinations: tuple[str, ...] = Field(
        (),
        description="Where the release goes besides the storage: a folder, an fsspec URI such as s3://bucket/models, or hub:org/name for "
        "the Hugging Face hub. Credentials come from the environment, or for the hub from `token_secret`.",
    )
    token_secret: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,200}$",
        description="Name of a Prefect Secret block with the hub's token, used instead of HF_TOKEN; the token is written nowhere.",
    )
    hub_pull_request: bool = Field(False, description="On the hub: open a pull request instead of a commit to the main branch.")
    hub_private: bool = Field(True, description="Create a hub repository that is not there yet as a private one.")
    reorder_strategy: ReorderStrategy = Field(
        "important_first_last",
        description="Strategy of the reorder config where the evaluation did not measure which order is best.",
    )
    min_effective_length: int | None = Field(
        None,
        ge=1,
        description="Publish only if the fine-tuned model's effective context length, by its lower bound, is at least this.",
    )
    min_task_scores: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {},
        description="Publish only if the lower bound of the fine-tuned model's score on a task at the target, such as `passkey`, is at "
        "least this, between 0 and 1.",
    )
    max_short_context_loss: float | None = Field(
        None, gt=0, description="Publish only if perplexity at the base's window rose by less than this share."
    )
    min_long_context_gain: float | None = Field(
        None, ge=0, lt=1, description="Publish only if perplexity at the target fell by at least this share against the base."
    )
