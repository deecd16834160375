"""The JSON Schema of a config, for editors that complete and check YAML."""

from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def params_schema() -> dict[str, Any]:
    """The schema of `PipelineParams`, with every parameter's description, bounds and default.

    Checks between parameters are not in it; `ropeway plan` makes them.
    """
    from data_schemas.params import PipelineParams

    return {"$schema": DIALECT} | PipelineParams.model_json_schema() | {"title": "A run of Ropeway"}
