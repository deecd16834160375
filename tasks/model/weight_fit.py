"""Whether the weights of a base fit the model that its config.json describes.

transformers fills weights that it does not find with random numbers and drops those that it has no place for; it only logs this.
Here the model is built without storage and "loads" tensors without storage that have the shapes of the files. So transformers' own
rules decide: tied embeddings, prefixes, renamed and merged tensors, names that may be ignored. This takes well under a second.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError
from tasks.model.quiet import quiet_transformers
from tasks.model.weight_files import StoredTensor, some_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def refuse_unfit(config: PretrainedConfig, tensors: Mapping[str, StoredTensor], base: str) -> None:
    """UserError that names the first differences between the stored tensors and the model of `config`."""
    model, report = _loaded_without_storage(config, tensors, base)
    refuse_partly_loaded(model, report, base)
    wrong = _without_floats(model, tensors)
    if wrong:
        name = wrong[0]
        raise UserError(
            f"The weights of base model {base} are stored as {tensors[name].dtype}, not as floating-point numbers ({some_names(wrong)}): "
            "give the unquantised base."
        )


def refuse_partly_loaded(model: PreTrainedModel, report: Mapping[str, Any], base: str, unexpected: bool = True) -> None:
    """UserError unless every weight of `model` came from the files, and every tensor of the files has a place in it.

    `report` is transformers' loading info. `unexpected`: whether tensors without a place are refused.
    """
    missing, shapes = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    left_over = sorted(report["unexpected_keys"]) if unexpected else []
    total = len(model.state_dict())
    found = []
    if missing:
        found.append(f"{len(missing)} of the model's {total} tensors are not in the files ({some_names(missing)})")
    if left_over:
        found.append(f"the model has no place for {len(left_over)} tensors of the files ({some_names(left_over)})")
    if shapes:
        name, stored, wanted = shapes[0]
        others = f", and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        found.append(f"{name} is {list(stored)} in the files and {list(wanted)} in the model{others}")
    if found:
        raise UserError(
            f"The weights of base model {base} do not fit its config.json ({type(model).__name__}): {'; '.join(found)}; give a "
            "config.json and weights that belong together."
        )


def _loaded_without_storage(
    config: PretrainedConfig, tensors: Mapping[str, StoredTensor], base: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch

    dtypes = {name: getattr(torch, _FLOATS.get(stored.dtype, "float32")) for name, stored in tensors.items()}
    empty = {name: torch.empty(stored.shape, dtype=dtypes[name], device="meta") for name, stored in tensors.items()}
    try:
        with quiet_transformers():
            return _model_class(config).from_pretrained(
                None,
                config=copy.deepcopy(config),
                state_dict=empty,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # tensors that are merged while loading raise what their merging raises
        if "conversion of the weights" not in str(error):
            raise UserError(
                f"The weights of base model {base} cannot be loaded as its config.json says: {' '.join(str(error).split())[:300]}."
            ) from error
        raise UserError(
            f"The weights of base model {base} do not fit its config.json ({_model_class(config).__name__}): tensors that belong "
            "together, such as the experts of a layer, are incomplete or differ in shape; download the files again."
        ) from error


def _model_class(config: PretrainedConfig) -> Any:
    """The class that AutoModelForCausalLM chooses."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not isinstance(classes, list | tuple):
        return classes
    named = getattr(config, "architectures", None) or []
    return next((one for one in classes if one.__name__ in named), classes[0])


def _without_floats(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """The tensors that hold integers or 8-bit floats where the model has floats. Buffers of integers are the model's own."""
    prefix, state = model.base_model_prefix, model.state_dict()
    found = []
    for name, stored in sorted(tensors.items()):
        place = next((key for key in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")) if key in state), None)
        is_float = state[place].is_floating_point() if place else stored.dtype.startswith("F")
        if stored.dtype not in _FLOATS and is_float:
            found.append(name)
    return found
