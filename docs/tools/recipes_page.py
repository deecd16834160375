"""Write docs/recipes/README.md: what each recipe needs, and the longest rows by GPU and model, both from `ropeway plan`'s formulas.

.venv/bin/python docs/tools/recipes_page.py
"""

from dataclasses import dataclass
from pathlib import Path

from data_schemas.params import PipelineParams
from flows.config import load_config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "docs" / "recipes"
PAGE = RECIPES / "README.md"
MFU = 0.4  # what `ropeway plan` assumes where it cannot measure
GPUS = {"24 GB": 24e9, "48 GB": 48e9, "80 GB": 80e9, "141 GB": 141e9}
STEP = 1024  # tokens between the lengths that are tried
LONGEST = 1 << 22


@dataclass(frozen=True)
class Recipe:
    file: str
    config: str  # below configs/, for the base's shape
    model: str
    base_tokens: str
    target_tokens: str
    hardware: str


HAND = (
    Recipe("llama-3.1-8b-512k.yaml", "llama-3.1-8b", "Llama-3.1-8B", "128k", "512k", "8 GPUs like H100 80 GB"),
    Recipe("qwen3-8b-128k.yaml", "qwen3-8b", "Qwen3-8B", "32k", "128k", "8 GPUs like H100 80 GB"),
    Recipe("mistral-7b-128k.yaml", "mistral-7b", "Mistral-7B-v0.3", "32k", "128k", "8 GPUs like H100 80 GB"),
    Recipe("smollm2-135m-32k.yaml", "smollm2-135m", "SmolLM2-135M", "8k", "32k", "1 GPU like RTX 4090 24 GB"),
)
HEAD = f"""# Recipes

<!-- written by docs/tools/recipes_page.py -->

Configurations to start from. `ropeway plan RECIPE.yaml` computes memory and time again for your changes. Memory is on each GPU. Time is of
training alone, at {MFU:.0%} of the GPU's peak. **None of it was measured on a GPU**: all figures are `plan`'s estimates.

| recipe | from | to | hardware | memory | GPU hours | training tokens |
| --- | --- | --- | --- | --- | --- | --- |
"""
FIGURES = """
A laptop runs the presets [demo](../../flows/presets/demo.yaml) and [demo-long](../../flows/presets/demo-long.yaml) without a GPU.
What the demo reaches is [measured](../evaluation.md#the-demos-results).

Expect perplexity at the target at or below that of the base at its own window, and short prompts within 5 %. A release that is not shown
to be longer than its base, or that loses more on short prompts, is kept and not served. The price of a training is its GPU hours times
that of your provider; the evaluation at the target comes on top.

- Some bases need an account on the hub that may read the model.
- Documents must be longer than the rows: `ropeway prepare` refuses a corpus without them.
- The recipes are for one machine with all the GPUs. Several machines also need [a shared folder](../storage.md).

## Longest row by GPU and model

One row on each GPU: LoRA with norms and embeddings, gradient checkpointing, bf16. The second figure is with
`training.activation_offload`. Eight GPUs split the weights (`training.parallelism: fsdp`) in the rows that say so. With
`training.position_skipping` the window can be longer than the row.

"""


def recipes_page() -> str:
    rows = [_row(recipe) for recipe in HAND]
    return HEAD + "\n".join(rows) + "\n" + FIGURES + _longest_table() + "\n"


def _row(recipe: Recipe) -> str:
    from ray_jobs.finetune.planning.estimate import Speed, run_seconds
    from ray_jobs.finetune.planning.memory import predict_memory
    from ray_jobs.finetune.planning.shape import training_shape

    params = of_recipe(recipe)
    shape, workers = training_shape(params), params.ray.num_workers
    memory = predict_memory(shape, params.training, params.row_tokens, num_workers=workers, cuda=True).total
    speed = Speed(MFU * (params.ray.peak_tflops or 0) * 1e12, "stated")
    hours = run_seconds(params, shape, speed) * workers / 3600
    tokens = params.training.steps * params.training.rows_per_step * params.row_tokens
    return (
        f"| [{recipe.model}]({recipe.file}) | {recipe.base_tokens} | {recipe.target_tokens} | {recipe.hardware} | {memory / 1e9:.0f} GB | "
        f"{hours:,.0f} | {tokens / 1e6:,.0f} million |"
    )


def of_recipe(recipe: Recipe) -> PipelineParams:
    """The recipe's parameters with the shape of its base from a config beside it."""
    return load_config(
        str(RECIPES / recipe.file), [f"model.base={RECIPES / 'configs' / recipe.config}", "training.precision=bf16"]
    )


def _longest_table() -> str:
    lines = ["| model | " + " | ".join(GPUS) + " |", "| --- |" + " --- |" * len(GPUS)]
    for recipe in HAND:
        for workers in (1, 8) if recipe.config != "smollm2-135m" else (1,):
            cells = [_longest(recipe, num_bytes, workers) for num_bytes in GPUS.values()]
            split = ", split over 8 GPUs" if workers > 1 else ""
            lines.append(f"| {recipe.model}{split} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _longest(recipe: Recipe, num_bytes: float, workers: int) -> str:
    from ray_jobs.finetune.planning.memory import SHARE_USED, predict_memory
    from ray_jobs.finetune.planning.shape import training_shape

    params = of_recipe(recipe)
    shape = training_shape(params)
    found = []
    for offload in (False, True):
        changed = {"activation_offload": offload, "parallelism": "fsdp" if workers > 1 else "ddp"}
        training = params.training.model_copy(update=changed)

        def fits(tokens: int, training: object = training) -> bool:
            need = predict_memory(shape, training, tokens, num_workers=workers, cuda=True).total  # type: ignore[arg-type]
            return need <= SHARE_USED * num_bytes

        low, high = 0, LONGEST // STEP
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle * STEP) else (low, middle - 1)
        found.append(low * STEP)
    return " / ".join(f"{tokens // 1024}k" if tokens else "–" for tokens in found)


if __name__ == "__main__":
    PAGE.write_text(recipes_page(), encoding="utf-8")
    print(PAGE)
