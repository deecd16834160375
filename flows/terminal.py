"""Running a flow from a terminal: Prefect logs only readable lines, and a UserError is one sentence."""

import contextlib
import logging
import os
import sys
from importlib import import_module

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage

GOALS = {
    "extend_context": ("published", "release"),
    "prepare": ("prepared", "shards"),
    "search_rope": ("searched", "rope_search"),
    "finetune": ("finetuned", "checkpoint"),
    "evaluate": ("evaluated", "evaluation"),
    "advise": ("advised", "advice"),
    "publish": ("published", "release"),
}  # of each flow: the method of `flows.chain.Chain`, and what the run's record calls its last artifact

# Publishing trains only what is missing, which is usually nothing.
TRAINING_FLOWS = frozenset({"extend_context", "search_rope", "finetune", "evaluate", "advise"})


def run_here(flow: str, params: PipelineParams, no_prefect: bool) -> str:
    """Run the flow, with Prefect or without it; or find at once what an equal run has made. Returns the artifact's location.

    UserError if the run cannot work.
    """
    from ray_jobs.submit.submission import is_submitted

    goal, last = GOALS[flow]
    if not is_submitted(params.ray) and last in Storage(params.storage).recorded_run(
        params.run_name
    ):  # else only the cluster sees the corpus
        from flows.finished import find_finished

        if found := find_finished(params, goal, announces=not no_prefect):
            return found
    from flows.check_inputs import check_inputs

    check_inputs(params, trains=flow in TRAINING_FLOWS, advises=flow == "advise" or params.advise.after_evaluation)
    if not no_prefect:
        return run_flow(flow, params)
    from flows.plain_stages import run_plainly

    return run_plainly(params, goal)


def run_flow(name: str, params: PipelineParams) -> str:
    """Run the flow in this process, on the server at PREFECT_API_URL or on a temporary one.

    Returns what the flow returns. UserError passes through, and Prefect prints no traceback for it. An interrupted run is Cancelled
    on the server.
    """
    be_quiet()
    flow = getattr(import_module("flows.pipeline"), name)
    from prefect.exceptions import CancelledRun

    from flows.embedded_server import ensure_server, kill_server
    from flows.flow_run_end import ensure_cancelled
    from flows.interrupt import at_the_latest, was_interrupted

    shorten_user_errors()
    refuse_unreachable_server()
    at_the_latest(lambda: ensure_cancelled("Interrupted."))
    at_the_latest(kill_server)
    ensure_server()
    try:
        return str(flow(params))
    except CancelledRun as cancelled:
        if was_interrupted():
            raise KeyboardInterrupt from cancelled
        raise UserError("The run was cancelled in Prefect: run again to go on.") from cancelled
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # the server may be gone
            ensure_cancelled("Interrupted.")
        raise


def refuse_unreachable_server() -> None:
    """UserError if the server at PREFECT_API_URL does not answer."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if url := PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
        if error is not None:
            raise UserError(f"The Prefect server at PREFECT_API_URL {url} does not answer: start it, or unset the variable.")


def be_quiet() -> None:
    """Reduce the output of Prefect and other libraries. Call it before importing Prefect; the user's own settings win."""
    line = "%(asctime)s  %(message)s"
    for variable, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",  # on a slow machine
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; an automation takes long silence for a crash
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": line,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": line,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": line,
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(variable, value)


def ask(question: str, default: str | None) -> str:
    """The answer from the terminal; without one the default. UserError if there is neither."""
    if sys.stdin.isatty():
        import typer

        answer: str = typer.prompt(question, default=default)
        return answer.strip()
    if default is None:
        raise UserError(
            f"This is not a terminal, so nobody can answer ({question}): give MODEL and CORPUS, see `ropeway init --help`."
        )
    return default


class _OneSentence(logging.Filter):
    """Reduces the record of a UserError to its sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UserError):
            if record.name == "prefect.flow_runs":
                return False  # the task has said it, and the command says it last
            record.exc_info, record.exc_text = None, None
            record.msg, record.args = "stopped: %s", (error,)
        return True


class _NoNotes(logging.Filter):
    """Drops Prefect's notes about its own states."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Finished in state", "Stopping temporary server"))


_ONE_SENTENCE, _NO_NOTES = _OneSentence(), _NoNotes()  # adding one again changes nothing


def shorten_user_errors(keep_notes: bool = False) -> None:
    """Log a UserError as its sentence, without a traceback. Drop Prefect's notes about its states unless `keep_notes`."""
    # On the loggers themselves: Prefect replaces their handlers whenever it sets logging up again.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_ONE_SENTENCE)
        if not keep_notes:
            logging.getLogger(name).addFilter(_NO_NOTES)
