"""A plan as a server computes it that has one table of frequencies for prompts of every length.

transformers chooses LongRoPE's short or long factors by the length of each prompt. vLLM makes one table when it loads the model,
for the whole window, so short prompts meet the long factors too. All other methods give prompts of every length the same table.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.model.rope_plan import RopePlan


def served_plan(plan: RopePlan) -> RopePlan | None:
    """The plan whose frequencies at every length are those that vLLM uses for `plan`'s full window; see `why_same` for None."""
    if why_same(plan):
        return None
    parameters = plan.rope_parameters | {"short_factor": plan.rope_parameters["long_factor"]}
    return replace(plan, rope_parameters=parameters)


def why_same(plan: RopePlan) -> str:
    """Why short prompts are not measured again as vLLM serves them; empty where served prompts meet other frequencies."""
    if plan.method == "dynamic":
        return (
            "dynamic leaves prompts within the base's window unscaled here and in vLLM, which does not scale longer ones either"
        )
    parameters = plan.rope_parameters
    if plan.method != "longrope":
        return f"{plan.method} scales prompts of every length alike, so each model is measured as vLLM serves it"
    if list(parameters["short_factor"]) == list(parameters["long_factor"]):
        return "the short and the long factors are the same, so each model is measured as vLLM serves it"
    return ""
