"""Pack: documents become chunks, chunks become rows, rows become Arrow shards. `shards_stage.py` runs the steps:

1. Check the settings before anything is read: `settings.py`.
2. Chunk each part of the documents, on workers: `chunk_job.py`. `sequences.py` keeps the chunks as token sequences.
3. Plan all rows from the sequences' lengths alone: `packer.py`, in this order:
   sort sequences by source and length (`buckets.py`), apply token budgets (`budgets.py`), mix sources and lengths
   (`recipes.py`), and fill rows by best-fit decreasing (`best_fit.py`).
4. Write each shard, on workers: `shard_job.py`, with `shards.py`.

With `retrieval.share`, `retrieval_sequences.py` adds the documents of `tasks.retrieval`, each in a row of its own.
`reading.py` reads the rows back, memory-mapped; `inspection/` shows a person what was packed.
"""
