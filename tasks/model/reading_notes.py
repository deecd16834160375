"""How a plan read its base: which window it took, what it carried over and what it left out. One sentence each."""

from __future__ import annotations

from tasks.model.rope_config import DUAL_CHUNK, BaseRope
from tasks.model.rope_keys import carried_keys
from tasks.model.rope_layers import FULL


def reading_notes(base: BaseRope) -> list[str]:
    """Empty for a base whose config can be read in one way only."""
    found = []
    if base.stated_window is not None:
        before = f", and {base.original_length} before its scaling" if base.original_length != base.window else ""
        found.append(
            f"The base's window is {base.window} tokens, as model.window says{before}; max_position_embeddings in its config.json is "
            f"{base.max_position_embeddings}."
        )
    elif base.rope_type == "linear" and not base.maximum_is_scaled:
        found.append(
            f"The base's max_position_embeddings {base.max_position_embeddings} is read as its window before scaling, as in vLLM, so the "
            f"base works up to {base.window} tokens. If {base.max_position_embeddings} is the window after scaling (deepseek-coder's "
            f"convention), set model.window to {base.max_position_embeddings}."
        )
    if base.dual_chunk:
        found.append(
            f"The base's {DUAL_CHUNK} is left out: transformers does not compute it, and vLLM would ignore this plan for it. So the base "
            f"is taken to work up to {base.window} tokens."
        )
    if base.layers:
        found.append(
            f"Only layers of type {FULL} are scaled; {', '.join(base.layers)} layers see {base.sliding_window} tokens back and keep "
            "the RoPE that they have."
        )
    if carried := carried_keys(base.parameters):
        found.append(f"Carried over from the base's rope_parameters unchanged: {', '.join(carried)}.")
    return found
