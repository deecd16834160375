"""Prompts of the retrieval, tracking and counting tasks: pure functions of tokenizer, held-out text, length and seed.

    Material ──make_prompts(task, length)──▶ [TaskPrompt, …] ──write_prompts──▶ Parquet, the same for every arm and worker

Every size is computed from the counted tokens of the pieces, so making a prompt always ends: it fits or is refused.

These are Ropeway's own tasks, not comparable with published figures: `tasks.evaluate.published` has those and the list of deviations.
"""
