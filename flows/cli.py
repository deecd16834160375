"""The `ropeway` command. Heavy imports stand inside the commands, so that `ropeway --help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import UserError, is_disk_full

app = typer.Typer(
    help="Extend a causal language model's context 2-32 times: prepare a corpus, fine-tune with LongLoRA, measure, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_CONFIG_HELP = "A preset's name (demo, smollm2) or a YAML file of parameters."
Config = Annotated[str, typer.Argument(help=_CONFIG_HELP)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.NAME=VALUE",
        help="Set one parameter (`ropeway params` lists them); VALUE is JSON or plain text. Repeatable.",
    ),
]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(version_of("ropeway"))
        raise typer.Exit


def main() -> None:
    """Entry point: exits 0 only on success, 2 with one sentence for what the user can mend."""
    try:
        app()
    except UserError as error:
        sys.exit(_refuse(str(error)))
    except Exception as error:
        if not is_disk_full(error):
            raise
        sys.exit(_refuse("No space left on the disk: free some below `storage` and in the temporary folder, then run again."))


def _refuse(sentence: str) -> int:
    print(f"ropeway: {sentence}", file=sys.stderr)
    return 2


def _run(flow: str, config: str, settings: list[str] | None) -> None:
    from flows.check_inputs import check_inputs
    from flows.config import load_config
    from flows.commands.outcome import print_outcome
    from flows.terminal import run_flow

    params = load_config(config, settings or ())
    check_inputs(params)
    print_outcome(params, run_flow(flow, params))


@app.command()
def demo(settings: Settings = None) -> None:
    """Run the whole chain on the shipped demo base and Python's own library; needs no download."""
    _run("extend_context", "demo", settings)


@app.command()
def params(group: Annotated[str, typer.Argument(help="Only those whose name begins so, such as training.")] = "") -> None:
    """List the parameters of a run: name, what it may be, default, meaning."""
    from data_schemas.params_help import describe_params

    if not (text := describe_params(group)):
        raise UserError(f"No parameter's name begins with {group}: `ropeway params` lists all.")
    print(text)


@app.command()
def run(config: Config, settings: Settings = None) -> None:
    """Run the whole chain; the release's folder is the last line printed."""
    _run("extend_context", config, settings)


@app.command()
def plan(
    config: Config,
    settings: Settings = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=0.1, help="GB a worker has; empty: this machine's GPU, 80 where none is seen.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(min=0.001, help="TFLOP/s one worker reaches; empty: by the GPU's name, measured on a CPU.")
    ] = None,
    budget_hours: Annotated[float | None, typer.Option(min=0, help="Hours that training may take.")] = None,
) -> None:
    """Say what a run would do, take and cost - RoPE, weights, memory, time - and whether chunking serves better."""
    from flows.config import load_config
    from flows.commands.plan import Machine, print_plan
    from flows.terminal import be_quiet

    be_quiet()
    print_plan(load_config(config, settings or ()), Machine(gpu_memory, tflops, budget_hours))


@app.command(name="compare-rope")
def compare_rope(
    config: Config,
    settings: Settings = None,
    documents: Annotated[int, typer.Option(min=2, help="Held-out documents, at most.")] = 16,
) -> None:
    """Measure the base at each RoPE method, scaling only: which suits it, before any GPU hour is spent."""
    from flows.check_inputs import check_inputs
    from flows.commands.compare_rope import show_comparison
    from flows.config import load_config
    from flows.terminal import be_quiet

    be_quiet()
    params = load_config(config, settings or ())
    check_inputs(params)
    show_comparison(params, documents)


@app.command()
def prepare(config: Config, settings: Settings = None) -> None:
    """Ingest, chunk and pack the corpus into Arrow shards."""
    _run("prepare", config, settings)


@app.command()
def inspect(
    shards: Annotated[str, typer.Argument(help="A shards folder or URI, as `prepare` prints it: STORAGE/shards/DIGEST.")],
    plot: Annotated[Path | None, typer.Option(help="PNG to write; by default shards-DIGEST.png in this folder.")] = None,
) -> None:
    """Show what is in shards: lengths, buckets, sources, waste, what was left out, sample rows; and plot it."""
    from flows.commands.inspection import show_shards

    show_shards(shards, plot)


@app.command()
def finetune(config: Config, settings: Settings = None) -> None:
    """Fine-tune the base for the longer context."""
    _run("finetune", config, settings)


@app.command()
def evaluate(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP)] = None,
    settings: Settings = None,
    from_samples: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: compute report and plots again from an evaluation's rows, this folder."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="With --from-samples: where to write; by default evaluation-DIGEST.")
    ] = None,
) -> None:
    """Measure base, scaling only and fine-tuned on held-out documents."""
    if output is not None and from_samples is None:
        raise UserError("--output says where --from-samples writes: give that too, or leave --output out.")
    if from_samples is not None and settings:
        raise UserError("--from-samples measures nothing, so --set has no effect on it: leave --set out.")
    if from_samples is not None and config is None:
        from flows.commands.from_samples import show_recomputed

        show_recomputed(from_samples, output)
    elif config is not None and from_samples is None:
        _run("evaluate", config, settings)
    else:
        raise UserError("Give either a CONFIG to measure, or --from-samples with the folder of a finished evaluation.")


@app.command()
def publish(config: Config, settings: Settings = None) -> None:
    """Write, verify and publish the release."""
    _run("publish", config, settings)


@app.command()
def verify(
    release: Annotated[
        str, typer.Argument(help="A release's folder or URI, or releases/NAME with its `current`; hub:org/name is downloaded.")
    ],
    run_with: Annotated[
        str | None,
        typer.Option(
            "--with", help="Run these as well, each in an environment of its own: transformers-5,transformers-4.57,vllm."
        ),
    ] = None,
    environments: Annotated[
        Path | None, typer.Option(help="Where those environments are made and kept; by default below ROPEWAY_CACHE.")
    ] = None,
) -> None:
    """Check every promise of a release: hashes, reload, logits, RoPE as each consumer reads it, reorder config."""
    from flows.commands.outcome import print_checks
    from flows.terminal import be_quiet
    from tasks.publish.fetch import release_folder
    from tasks.publish.verify import verify_release

    be_quiet()
    consumers = [name.strip() for name in run_with.split(",") if name.strip()] if run_with else []

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    with release_folder(release, tell) as folder:
        checks = verify_release(folder, consumers, environments, progress=tell)
    print_checks(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


_WHERE_HELP = "A storage root, a destination of releases (a folder or URI), or hub:org/name."


@app.command()
def releases(where: Annotated[str, typer.Argument(help=_WHERE_HELP)] = "ropeway-storage") -> None:
    """List the versions of every release, and which one is served."""
    from flows.commands.releases import show_releases

    show_releases(where)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The release.")],
    digest: Annotated[
        str | None, typer.Argument(help="The version to serve; empty: the one published before the current one.")
    ] = None,
    at: Annotated[str, typer.Option(help=_WHERE_HELP)] = "ropeway-storage",
) -> None:
    """Serve an earlier version of a release again; every file of it is checked first."""
    from flows.commands.releases import go_back

    go_back(at, name, digest)


@app.command()
def reorder(
    passages: Annotated[Path, typer.Argument(help="JSONL, one passage a line, best first or with a `score`.")],
    config: Annotated[Path, typer.Option(help="chunk_reorder.json, or a release that contains one.")],
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, help="Keep the most relevant passages within so many tokens.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Counts tokens; without it passages need `num_tokens`.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Another strategy than the config's.")] = None,
    near_duplicates: Annotated[float | None, typer.Option(help="Merge passages from this similarity on, such as 0.8.")] = None,
    join_overlaps: Annotated[bool, typer.Option(help="Join passages that overlap in one document.")] = False,
    keep_adjacent: Annotated[bool, typer.Option(help="Keep neighbouring chunks of a document together.")] = False,
    instructions: Annotated[str | None, typer.Option(help="Text to stand first.")] = None,
    question: Annotated[str | None, typer.Option(help="Text to stand last.")] = None,
) -> None:
    """Print the passages in the order in which they should stand in the prompt, as JSONL."""
    from flows.commands.reorder import print_reordered
    from tasks.reorder.options import ReorderOptions

    options = ReorderOptions(
        strategy=strategy,  # type: ignore[arg-type]  # checked there
        near_duplicates=near_duplicates,
        join_overlaps=join_overlaps,
        keep_adjacent=keep_adjacent,
        instructions=instructions,
        question=question,
    )
    print_reordered(config, passages, budget_tokens, options, tokenizer)


@app.command()
def serve() -> None:
    """Register the flows' deployments with the Prefect server and run what is triggered there."""
    from flows.deployments import serve_all
    from flows.terminal import be_quiet

    be_quiet()
    serve_all()


@app.command()
def stop(
    config: Config,
    settings: Settings = None,
    force: Annotated[bool, typer.Option(help="Also where another run waits for the job.")] = False,
) -> None:
    """Stop the jobs that a run left on a Ray cluster when its own machine was lost; a run that lives stops its own."""
    from flows.config import load_config
    from ray_jobs.submit.submission import is_submitted, stop_jobs

    params = load_config(config, settings or ())
    if not is_submitted(params.ray):
        raise UserError(
            f"ray.address is {params.ray.address}, where nothing is submitted: give the dashboard, http://HOST:8265."
        )
    if not stop_jobs(params, lambda line: print(line, file=sys.stderr), force=force):
        print("No job of this run was stopped: there is none, or a run waits for it (then cancel that run).")


@app.command()
def automate(
    notify: Annotated[
        str | None, typer.Option(metavar="TYPE/NAME", help="Prefect notification block that is told of failures and releases.")
    ] = None,
    then: Annotated[str | None, typer.Option(metavar="FLOW/NAME", help="Deployment to run after every release.")] = None,
) -> None:
    """Set automations up on the Prefect server: silent runs count as crashed, notifications, what follows a release."""
    from flows.automation import set_up
    from flows.terminal import be_quiet

    be_quiet()
    set_up(notify, then)


if __name__ == "__main__":
    main()
