"""Parameters of Ray: where the heavy work runs, and on how many workers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from data_schemas.closed import Params


class RayParams(Params):
    """Where the heavy work runs."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"exchange_timeout_s", "sequence_workers"})

    address: str = Field(
        "local",
        min_length=1,
        description="local: run on this machine. http://HOST:8265: submit jobs to the cluster with that dashboard. auto or "
        "HOST:6379: connect to a cluster that this machine is a node of.",
    )
    num_workers: int = Field(1, ge=1, description="Number of training workers.")
    min_workers: int | None = Field(
        None,
        ge=1,
        description="Elastic training: if workers are lost, go on with no fewer than this many. Empty: the number is fixed.",
    )
    sequence_workers: int = Field(
        1,
        ge=1,
        description="Cut each row over this many training workers, for rows that do not fit one. The result does not depend on it. "
        "ray.num_workers must be a multiple of it.",
    )
    exchange_timeout_s: float = Field(
        600,
        gt=0,
        description="With ray.sequence_workers: a worker that does not answer another within this many seconds is taken for lost, and "
        "training goes on from the last checkpoint. Tried on CPUs (gloo), not on GPUs (NCCL).",
    )
    use_gpu: bool = Field(False, description="Give each worker one GPU. Off: workers use CPUs.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved for each worker.")
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="Peak TFLOP/s of one worker's device, used to report MFU. Empty: looked up by the GPU's name, for bf16.",
    )
    data_workers: int | None = Field(
        None, ge=1, description="Workers of the data stage. The shards do not depend on it. Empty: one for each CPU."
    )
    working_dir: str | None = Field(
        None,
        min_length=1,
        description="For a submitted job: folder with Ropeway's code to upload. Empty: use the Ropeway installed on the cluster.",
    )
    env_vars: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field(
        (),
        description="For a submitted job: names of environment variables to pass on, such as AWS_SECRET_ACCESS_KEY. Their values "
        "come from the environment of the submitting process.",
    )

    @model_validator(mode="after")
    def _can_be_used(self) -> RayParams:
        if self.num_workers % self.sequence_workers:
            raise ValueError(
                f"ray.num_workers {self.num_workers} is not a multiple of ray.sequence_workers {self.sequence_workers}: change one of them"
            )
        if self.sequence_workers > 1 and self.min_workers is not None:
            raise ValueError(
                "ray.min_workers cannot be used with ray.sequence_workers, which needs whole groups: leave one out"
            )
        if "@" in self.address:
            raise ValueError("ray.address contains credentials: leave them out, and give the cluster's token as RAY_AUTH_TOKEN")
        if self.address.startswith("ray://"):
            raise ValueError(
                f"ray.address {self.address} is Ray Client, which cannot run Ray Train: "
                "give the cluster's dashboard, http://HOST:8265, to submit there"
            )
        return self
