"""Prompts of the retrieval, tracking and counting tasks: pure functions of tokenizer, held-out text, length and seed.

    Material ──make_prompts(task, length)──▶ [TaskPrompt, …] ──write_prompts──▶ Parquet, the same for every arm and worker

Sizes are planned from the counted tokens of the pieces. The finished prompt is encoded as one text (`joining`) and fitted in a bounded
number of tries, so making a prompt always ends: it fits or is refused.

These are Ropeway's own tasks, not comparable with published figures: `tasks.evaluate.published` has those and the list of deviations.
"""
