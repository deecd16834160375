"""The measured advice as a page: its sentences, a table a kind of question, and the plot."""

from __future__ import annotations

from collections.abc import Iterator

from data_schemas.serving_advice import ADVICE_FILE_NAME, read_advice
from data_schemas.storage import Artifact
from tasks.advise.plot import PLOT_NAME
from tasks.advise.table import kind_table, kinds_of, sentences_of
from tasks.prefect_tasks.pages.elements import Page, Picture, markdown_table, plain, small_file

KEY = "advice"


def advice_shown(artifact: Artifact) -> Iterator[Page | Picture]:
    """One page, and the plot where questions were asked."""
    advice = read_advice(artifact.path / ADVICE_FILE_NAME)
    tables = []
    for kind in kinds_of(advice):
        title, columns, rows = kind_table(advice, kind)
        tables.append(f"### {title}\n\n{markdown_table(columns, rows)}\n")
    sentences = "\n".join(f"- {plain(sentence, 600)}" for sentence in sentences_of(advice))
    notes = "\n".join(f"- {plain(note, 600)}" for note in advice.note.splitlines())
    yield Page(KEY, "\n\n".join(["## Extend or chunk?", sentences, *tables, f"Notes:\n\n{notes}"]) + "\n")
    with small_file(artifact, f"{PLOT_NAME}.png") as path:
        if path is not None:
            yield Picture(f"{KEY}-plot", path.read_bytes())
