"""Retrieval documents: training text rearranged so that some of it can only be predicted from evidence far back in the document.

    training documents of a part ─ text_supply ─▶ passages ─ families/ ─▶ drafts ─ fitting + rendering ─▶ token ids, loss weights

`retrieval_stage.py` runs it between ingest and pack, on workers: `make_job.py` makes the documents of one part of the corpus. Each
document has exactly as many tokens as a row. `settings.py` refuses what cannot work before anything is read.

No file here imports `tasks.evaluate`: what is trained must not look like what is measured, and a test compares their texts.
"""
