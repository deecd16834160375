"""`ropeway advise`: extend or chunk, measured on one's own corpus, model and prices."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_schemas.params import PipelineParams
from data_schemas.serving_advice import ADVICE_FILE_NAME, read_advice
from data_schemas.storage import Artifact, Storage

_WIDTH = 170


def advise(params: PipelineParams, no_prefect: bool) -> None:
    """Measure the advice, or find it, as `run` would, and print it.

    UserError if no question can be made, or a file of questions or the embedding model is wrong.
    """
    from flows.terminal import run_here
    from ray_jobs.advise.advice_key import KIND

    location = run_here("advise", params, no_prefect)
    artifact = Storage(params.storage).find(KIND, location.rstrip("/").rpartition("/")[2])
    assert artifact is not None, "a finished run has made it"
    show_advice(artifact)


def show_advice(artifact: Artifact) -> None:
    """Print a finished advice: a table a kind of question, the sentences, the notes, and its folder as the last line."""
    from tasks.advise.plot import PLOT_NAME
    from tasks.advise.table import kind_table, kinds_of, sentences_of

    console = Console()
    console.width = max(console.width, _WIDTH)  # a row stays one line
    advice = read_advice(artifact.path / ADVICE_FILE_NAME)
    for kind in kinds_of(advice):
        title, columns, rows = kind_table(advice, kind)
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(escape(column), no_wrap=True)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for note in advice.note.splitlines():
        console.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)
    for sentence in sentences_of(advice):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if (plot := artifact.path / f"{PLOT_NAME}.png").is_file():
        print(plot)
    print(artifact.location, flush=True)
