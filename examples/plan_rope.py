"""Plan how the rotary frequencies of an 8k Llama are scaled to 32k, compare methods, and see a refusal.

    python examples/plan_rope.py

Only a config is needed: no weights are loaded and nothing is downloaded.
"""

from transformers import LlamaConfig

from data_schemas.errors import UserError
from ray_jobs.finetune.rope import plan_rope

CONFIG = LlamaConfig(max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})


def main() -> None:
    for method in ("auto", "linear", "ntk", "dynamic"):
        plan = plan_rope(CONFIG, 32_768, method)
        slowest, attention_factor = plan.frequencies(32_768)[0][-1], plan.frequencies(32_768)[1]
        refused = [name for name, why in plan.servable_by().items() if why]
        print(
            f"{method:7} -> {plan.method:7} slowest pair {slowest:.2e} rad/token, attention factor {attention_factor:.3f},",
            end=" ",
        )
        print(
            f"training {'required' if plan.training_required else 'recommended'}, not read by: {', '.join(refused) or 'nobody'}"
        )

    plan = plan_rope(CONFIG, 32_768)
    plan.apply(CONFIG)  # a model built from this config has the longer window
    print(f"config: {CONFIG.rope_parameters}, {CONFIG.max_position_embeddings} positions")

    try:
        plan_rope(CONFIG, 65_536, "linear")  # the base is scaled by YaRN now
    except UserError as refusal:
        print(f"refused: {refusal}")


if __name__ == "__main__":
    main()
