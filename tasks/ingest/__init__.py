"""Ingest: a corpus becomes the `documents` artifact. The order of the stage, run by `documents_stage.py`:

1. List the files of all sources: `listing/` (data sets of the Hugging Face hub: `reading/datasets_hub.py`).
2. Cut the corpus into units that workers read independently: `corpus_units.py`, with `reading/file_parts.py`.
3. Read each unit, on workers: `survey.py`, with `reading/`. What cannot be read is quarantined.
4. Split by work into training and held-out documents, in the same pass: `split.py`.
5. Sketch each document for the next steps, in the same pass: `duplicates/near_duplicates.py`, with n-grams of `tasks/ngrams/`.
6. Choose which of equal and near-equal documents stay: `duplicates/selection.py`.
7. Find passages that two documents share: `duplicates/excerpts.py`.
8. Remove training documents that contain evaluated text, on workers: `decontamination/decontaminate.py`.
9. Write what stays, on workers: `write_job.py`, and account for all of it: `accounting.py`.

`refusals.py` ends the stage where too little can be read or one side of the split is empty. `globs.py` and `locations.py`
hold the patterns and the URIs that sources are named by.
"""
