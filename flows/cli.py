"""The `ropeway` command. Imports are inside the commands, so that `ropeway --help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import UserError, as_user_error

app = typer.Typer(
    help="Extend the context of a causal language model 2 to 32 times: prepare a corpus, fine-tune with LongLoRA, measure, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_CONFIG_HELP = "Name of a preset (demo, demo-long, smollm2, gemma3-270m), or path of a YAML file of parameters."
Config = Annotated[str, typer.Argument(help=_CONFIG_HELP)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.NAME=VALUE",
        help="Set one parameter, such as training.steps=100. VALUE is text, JSON, or a list such as [passkey]. Repeatable; "
        "`ropeway params` lists the names.",
    ),
]

NoPrefect = Annotated[
    bool, typer.Option("--no-prefect", help="Run the stages without Prefect: no server, no run page, no queue for the GPUs.")
]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(version_of("ropeway"))
        raise typer.Exit


def main() -> None:
    """Entry point. Exits 0 only on success, 2 with one sentence for an error that the user can fix, and 3 if the new version of a
    release is kept but not served, because of its figures.
    """
    from flows.interrupt import stop_on_interrupt

    stop_on_interrupt()
    try:
        app()
    except UserError as error:
        sys.exit(_refuse(str(error)))
    except Exception as error:
        if (told := as_user_error(error)) is None:
            raise
        sys.exit(_refuse(str(told)))


def _refuse(sentence: str) -> int:
    print(f"ropeway: {sentence}", file=sys.stderr)
    return 2


def _run(flow: str, config: str, settings: list[str] | None, no_prefect: bool) -> None:
    from flows.commands.outcome import print_outcome
    from flows.config import load_config
    from flows.terminal import run_here

    params = load_config(config, settings or ())
    published = print_outcome(params, run_here(flow, params, no_prefect))
    if published is not None and published.failed:
        raise typer.Exit(3)


@app.command()
def demo(settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Run everything on a small model; needs no download.

    Model and corpus come with Ropeway and Python: a 4M-parameter base, and the standard library's source.
    """
    _run("extend_context", "demo", settings, no_prefect)


@app.command()
def init(
    model: Annotated[str | None, typer.Argument(help="Base model: a folder, a hub id such as org/name, or demo.")] = None,
    corpus: Annotated[
        str | None, typer.Argument(help="Corpus: a folder or URI of long documents, or `stdlib:` or `packages:`.")
    ] = None,
    target_length: Annotated[int | None, typer.Option(min=32, help="Tokens of context to reach. Empty: it is asked.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.001, help="Hours that training may take. Empty: it is asked.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Empty: it is asked.")] = None,
) -> None:
    """Write a first config for your model and corpus.

    It fits this machine, and says the estimated time and memory. Asks for what is not given. Without a terminal it takes the usual
    answers, and MODEL and CORPUS must be given.
    """
    from flows.commands.init import write_config
    from flows.terminal import ask, be_quiet

    be_quiet()
    write_config(model, corpus, target_length, hours, output, ask)


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option(help="File to write. Empty: print it.")] = None,
) -> None:
    """Print the JSON Schema of a config, for editors.

    The line `# yaml-language-server: $schema=FILE` at the top of a config makes editors use it.
    """
    import json

    from data_schemas.storage import write_atomically
    from flows.params_schema import params_schema

    text = json.dumps(params_schema(), indent=1)
    if output is None:
        print(text)
    else:
        write_atomically(output, text + "\n")


@app.command()
def params(
    group: Annotated[str, typer.Argument(help="Only parameters whose names begin with this, such as training.")] = "",
) -> None:
    """List the parameters of a run and what they mean."""
    from data_schemas.params_help import describe_params

    if not (text := describe_params(group)):
        raise UserError(f"No parameter's name begins with {group}: `ropeway params` lists all names.")
    print(text)


@app.command()
def run(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Run everything from corpus to release. The last line printed is the release's folder."""
    _run("extend_context", config, settings, no_prefect)


@app.command()
def doctor(
    config: Annotated[str | None, typer.Argument(help=f"{_CONFIG_HELP} Empty: only the machine is looked at.")] = None,
    settings: Settings = None,
) -> None:
    """Check this machine, and say what each `auto` would be.

    One line each for hardware, kernels, disk, ports and hub. With a CONFIG also what is checked before its run. Nothing is made or
    changed.
    """
    if config is None and settings:
        raise UserError("--set changes a CONFIG: give one, or remove --set.")
    from flows.commands.doctor import show_findings
    from flows.config import load_config
    from flows.terminal import be_quiet

    be_quiet()
    if not show_findings(None if config is None else load_config(config, settings or ())):
        raise typer.Exit(1)


@app.command()
def plan(
    config: Config,
    settings: Settings = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=0.1, help="GPU memory of one worker in GB. Empty: that of this machine's GPU, or 80 without one."),
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="TFLOP/s of one worker. Empty: estimated from the GPU's name, or measured on a CPU."),
    ] = None,
    budget_hours: Annotated[float | None, typer.Option(min=0, help="Hours that training may take. Empty: no limit.")] = None,
    measured: Annotated[
        Path | None,
        typer.Option(help="Speeds measured on your GPU: a file of `python -m benchmarks.gpu_training throughput --json FILE`."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Also run one training step on tensors without content, which needs no GPU: finds what would fail, and counts "
            "memory, operations and bytes sent. About a minute.",
        ),
    ] = False,
) -> None:
    """Show what a run would do, and its memory and time.

    Also says whether chunking would serve this corpus better than a longer context. Nothing is trained.
    """
    from flows.commands.plan import Machine, print_plan
    from flows.config import load_config
    from flows.terminal import be_quiet

    be_quiet()
    machine = Machine(gpu_memory, tflops, budget_hours, measured)
    print_plan(load_config(config, settings or ()), machine, dry_run=dry_run)


@app.command(name="compare-rope")
def compare_rope(
    config: Config,
    settings: Settings = None,
    documents: Annotated[int, typer.Option(min=2, help="Largest number of held-out documents to measure on.")] = 16,
) -> None:
    """Measure the untrained base with each RoPE method.

    Use it to choose model.rope_method before any GPU time is spent.
    """
    from flows.check_inputs import check_inputs
    from flows.commands.compare_rope import show_comparison
    from flows.config import load_config
    from flows.terminal import be_quiet

    be_quiet()
    params = load_config(config, settings or ())
    check_inputs(params)
    show_comparison(params, documents)


@app.command(name="search-rope")
def search_rope(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Search RoPE factors for the target length (LongRoPE).

    Prints how they compare with YaRN and NTK, and which is used. With model.rope_method longrope a run searches by itself.
    """
    from flows.commands.search_rope import search
    from flows.config import load_config

    search(load_config(config, settings or ()), no_prefect)


@app.command()
def prepare(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Read, chunk and pack the corpus into Arrow shards."""
    _run("prepare", config, settings, no_prefect)


@app.command()
def inspect(
    shards: Annotated[str, typer.Argument(help="Folder or URI of shards, as `prepare` prints it: STORAGE/shards/DIGEST.")],
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to write. Empty: shards-DIGEST.png in the current folder.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(help="Copy the shards to hub:ORG/NAME (a data set) or a URI such as s3://BUCKET/FOLDER. Token: HF_TOKEN."),
    ] = None,
) -> None:
    """Show and plot what is in shards, write their data card, and copy them elsewhere.

    Lengths, buckets, sources, padding, left-out documents and sample rows.
    """
    from flows.commands.inspection import show_shards

    show_shards(shards, plot, push)


@app.command()
def finetune(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Fine-tune the base for the longer context. Prepares the corpus first if needed."""
    _run("finetune", config, settings, no_prefect)


@app.command()
def evaluate(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP)] = None,
    settings: Settings = None,
    from_samples: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a finished evaluation: compute report and plots again from its sample rows, without measuring."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="With --from-samples: folder to write to. Empty: evaluation-DIGEST in the current folder."),
    ] = None,
    no_prefect: NoPrefect = False,
) -> None:
    """Measure base, scaling only and fine-tuned model. Trains first if needed."""
    if output is not None and from_samples is None:
        raise UserError("--output says where --from-samples writes: give both, or remove --output.")
    if from_samples is not None and settings:
        raise UserError("--from-samples measures nothing, so --set has no effect on it: remove --set.")
    if from_samples is not None and config is None:
        from flows.commands.from_samples import show_recomputed

        show_recomputed(from_samples, output)
    elif config is not None and from_samples is None:
        _run("evaluate", config, settings, no_prefect)
    else:
        raise UserError("Give either a CONFIG to measure, or --from-samples with the folder of a finished evaluation.")


@app.command()
def advise(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Extend or chunk? Measure it on your corpus and model.

    Asks the same questions with whole documents, retrieved chunks and summaries of parts, and compares answers and costs. Trains first if
    needed.
    """
    from flows.commands.advise import advise as measure
    from flows.config import load_config

    measure(load_config(config, settings or ()), no_prefect)


@app.command()
def publish(config: Config, settings: Settings = None, no_prefect: NoPrefect = False) -> None:
    """Write, verify and publish the release. Runs every missing stage first."""
    _run("publish", config, settings, no_prefect)


@app.command()
def verify(
    release: Annotated[
        str, typer.Argument(help="A release: folder, URI or hub:org/name. releases/NAME means its current version.")
    ],
    run_with: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="Also load the release in these programs, each in its own environment: transformers-5,transformers-4.57,vllm,llama.cpp.",
        ),
    ] = None,
    environments: Annotated[
        Path | None,
        typer.Option(help="Folder to keep those environments in. Empty: in ROPEWAY_CACHE, or else in the user's cache folder."),
    ] = None,
    signed_by: Annotated[
        Path | None, typer.Option(help="Public key (.pub) that must have signed it. Empty: any signature, or none.")
    ] = None,
) -> None:
    """Check a release: hashes, signature, logits, RoPE, reorder config.

    Loads the model again, and checks how each program that serves models reads its RoPE scaling.
    """
    from data_schemas.progress import print_progress
    from flows.commands.outcome import print_checks
    from flows.terminal import be_quiet
    from tasks.publish.fetch import release_folder
    from tasks.publish.verify import verify_release

    be_quiet()
    consumers = [name.strip() for name in run_with.split(",") if name.strip()] if run_with else []

    with release_folder(release, print_progress) as folder:
        checks = verify_release(folder, consumers, environments, progress=print_progress, signed_by=signed_by)
    print_checks(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def keys(name: Annotated[Path, typer.Argument(help="Where to write the keys: NAME.key and NAME.pub.")]) -> None:
    """Make a pair of keys to sign releases with."""
    from flows.commands.sign import write_keys

    write_keys(name)


@app.command()
def sign(
    release: Annotated[Path, typer.Argument(help="A release folder. releases/NAME means its current version.")],
    key: Annotated[Path, typer.Option(help="The private key, NAME.key.")],
) -> None:
    """Sign a release. Readers check it with `ropeway verify --signed-by NAME.pub`."""
    from flows.commands.sign import sign_release

    sign_release(release, key)


_WHERE_HELP = "Where the releases are: a storage root, a destination (folder or URI), or hub:org/name."


@app.command()
def releases(where: Annotated[str, typer.Argument(help=_WHERE_HELP)] = "ropeway-storage") -> None:
    """List the versions of every release. The current one is the one that is served."""
    from flows.commands.releases import show_releases

    show_releases(where)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    digest: Annotated[
        str | None, typer.Argument(help="Version to serve. Empty: the one published before the current one.")
    ] = None,
    at: Annotated[str, typer.Option(help=_WHERE_HELP)] = "ropeway-storage",
) -> None:
    """Serve an earlier version of a release again. All its files are checked first."""
    from flows.commands.releases import go_back

    go_back(at, name, digest)


@app.command()
def reorder(
    passages: Annotated[Path, typer.Argument(help="JSONL file with one passage per line, best first or with a `score`.")],
    config: Annotated[Path, typer.Option(help="A chunk_reorder.json file, or a release that contains one.")],
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, help="Keep only the best passages that fit this many tokens. Empty: keep all.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json or its folder. Empty: passages need `num_tokens`.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Strategy to use instead of the config's.")] = None,
    ranking: Annotated[
        str, typer.Option(help="score: higher `score` is better. distance: lower `distance` is better. given: as in the file.")
    ] = "score",
    near_duplicates: Annotated[float | None, typer.Option(help="Merge passages at least this similar, such as 0.8.")] = None,
    join_overlaps: Annotated[bool, typer.Option(help="Join passages that overlap in one document.")] = False,
    keep_adjacent: Annotated[bool, typer.Option(help="Keep neighbouring chunks of a document together.")] = False,
    instructions: Annotated[str | None, typer.Option(help="Text to put first.")] = None,
    question: Annotated[str | None, typer.Option(help="Text to put last.")] = None,
) -> None:
    """Print passages in the order for the prompt, as JSONL."""
    from flows.commands.reorder import print_reordered
    from tasks.reorder.options import ReorderOptions

    options = ReorderOptions(
        strategy=strategy,  # type: ignore[arg-type]  # checked there
        ranking=ranking,  # type: ignore[arg-type]
        near_duplicates=near_duplicates,
        join_overlaps=join_overlaps,
        keep_adjacent=keep_adjacent,
        instructions=instructions,
        question=question,
    )
    print_reordered(config, passages, budget_tokens, options, tokenizer)


@app.command()
def serve() -> None:
    """Register the flows with the Prefect server and run them.

    Runs whatever is triggered there, by a schedule, the UI or the API, until interrupted.
    """
    import signal

    from flows.deployments import serve_all
    from flows.terminal import be_quiet

    be_quiet()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Prefect's own end: it waits for the runs under way
    serve_all()


@app.command()
def stop(
    config: Config,
    settings: Settings = None,
    force: Annotated[bool, typer.Option(help="Stop the jobs even if another run waits for them.")] = False,
) -> None:
    """Stop the Ray jobs of a run whose own machine was lost. To stop a live run, cancel the run itself."""
    from data_schemas.progress import print_progress
    from flows.config import load_config
    from ray_jobs.submit.submission import is_submitted, stop_jobs

    params = load_config(config, settings or ())
    if not is_submitted(params.ray):
        raise UserError(
            f"ray.address is {params.ray.address}, to which no jobs are submitted: give the cluster's dashboard, http://HOST:8265."
        )
    if not stop_jobs(params, print_progress, force=force):
        print("No job was stopped: this run has none, or another run waits for it. Cancel that run, or give --force.")


@app.command()
def automate(
    notify: Annotated[
        str | None,
        typer.Option(metavar="TYPE/NAME", help="Prefect notification block to send failures and releases to."),
    ] = None,
    then: Annotated[str | None, typer.Option(metavar="FLOW/NAME", help="Deployment to run after every release.")] = None,
) -> None:
    """Set up automations on the Prefect server.

    They mark silent runs as crashed, send notifications, and run a deployment after each release.
    """
    from flows.automation import set_up
    from flows.terminal import be_quiet

    be_quiet()
    set_up(notify, then)


if __name__ == "__main__":
    main()
