"""The base of all parameter models."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Frozen, closed to unknown names; field docstrings stand in `description`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
