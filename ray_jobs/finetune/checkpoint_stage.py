"""Fine-tuning as a stage: shards in, a checkpoint artifact out, on Ray Train.

The artifact holds `adapter/` (LoRA, norms and embeddings, peft's format), `rope_plan.json`, `tokenizer/`, `training_log.jsonl`,
`progress.jsonl` and `tensorboard/`; `full_attention_layers.json` where some layers or heads attend in full; and `short_factors.json` where
another list for short prompts was looked for (`training.find_short_factors`), which `rope_plan.json` then has if it is better.

A killed run continues from its last checkpoint. The checkpoint is found under the digest of the parameters that decide what is
computed, not how: the number of workers may change in between.

With `training.stages`, each training stage is a checkpoint artifact of its own, whose key holds the digest of the one that it starts
from. It starts with that one's weights and a fresh optimizer; the adapter keeps its shape, so the last artifact is merged like any other.
A finished stage before the last one is used again although parameters that decide only how it was computed have changed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_schemas.absolute_paths import absolute_paths
from data_schemas.earlier_stages import EARLIER_STAGES, RETRIEVAL, mix_of, rows_read, stages_up_to
from data_schemas.errors import UserError, is_out_of_memory
from data_schemas.locks import holder_of, locked_at_once
from data_schemas.manifest import MANIFEST_NAME, Manifest, stage_digest
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback, TrainingStarted, message
from data_schemas.rope_search_params import OF_SHORT_FACTORS
from data_schemas.short_factors import SHORT_FACTORS_NAME
from data_schemas.storage import Artifact, Storage
from ray_jobs.cluster import connected, interruptibly
from ray_jobs.finetune.full_layers import FULL_LAYERS_FILE, num_full_layers, num_kv_heads_of, read_full_layers
from ray_jobs.finetune.sequence_parallel.answering import WorkerLostError
from ray_jobs.finetune.short_factors import find_short_factors, short_samples
from ray_jobs.finetune.short_window_rules import check_short_windows
from ray_jobs.finetune.training.ray_worker import REFUSAL, train_on_worker
from ray_jobs.finetune.training.training_log import LOG_NAME, PROGRESS_NAME, TENSORBOARD_DIR, Follower
from ray_jobs.prepare import job as prepare_job
from ray_jobs.shared_storage import refuse_unshared
from tasks.model.base_model import base_fingerprint, load_tokenizer
from tasks.model.extended import ADAPTER_DIR, checkpoint_plan, planned_factors

CODE_VERSION = 7
KIND, STAGE = "checkpoints", "finetune"
_NAMING_WORKERS = {"num_workers", "min_workers", "use_gpu", "cpus_per_worker"}  # part of a job's name
_RAY_DIR = "ray"  # below the work folder: Ray Train's own files of a run
# They decide how a step is computed, or what follows the last one, not what a step is: an interrupted run continues although these changed.
_HOW = ("parallelism", "activation_offload", "gradient_checkpointing", "loss_kernel", "loss_chunk_tokens", "micro_batch_rows",
        "s2_executor", "mlp_tile_tokens", "kept_layers", "attention_outputs", "checkpoint_every", "validate_every",
        "validation_rows", "find_short_factors")  # fmt: skip
ROWS_READ = "rows_read"  # of the same shards by the stages before; in a checkpoint's parameters where there are any
_SHORT = "short_factors"  # in a checkpoint's parameters: what the measurements after training depend on
_FAILURES, _ELASTIC_FAILURES = 2, 20  # lost workers after which a run ends; in an elastic run workers come and go


def stage_params(params: PipelineParams) -> dict[str, Any]:
    """Parameters that determine the trained weights. The worker count is one of them, because it changes the order of summation."""
    not_recorded = {"base", "base_id", "chat_template", "licence", "revision", "rope_factors_file", "serve_with"}
    model = params.model.recorded(exclude=not_recorded)
    elastic: dict[str, Any] = {} if params.ray.min_workers is None else {"min_workers": params.ray.min_workers}
    if params.ray.sequence_workers > 1:
        elastic["sequence_workers"] = params.ray.sequence_workers
    return (
        {
            "model": model | {"rope_factors": planned_factors(params.model)},
            "training": params.training.recorded(),
            "num_workers": params.ray.num_workers,
            "use_gpu": params.ray.use_gpu,
        }
        | elastic
        | _of_short_factors(params)
    )


def _of_short_factors(params: PipelineParams) -> dict[str, Any]:
    """What decides the list for short prompts, if one is looked for after training."""
    if not params.training.find_short_factors:
        return {}
    return {_SHORT: params.rope_search.model_dump(mode="json", include=set(OF_SHORT_FACTORS))}


def determining(params: PipelineParams) -> dict[str, Any]:
    """The parameters that decide what the job `finetune` makes, which prepares the shards first where they are missing."""
    workers = params.ray.model_dump(mode="json", include=_NAMING_WORKERS)
    if params.ray.sequence_workers > 1:
        workers["sequence_workers"] = params.ray.sequence_workers
    training = {"training": params.training.recorded(), "ray": workers}
    return prepare_job.determining(params) | training | _of_short_factors(params)


def trajectory_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What of `stage_params`, as a checkpoint's manifest has them, decides which steps are made; the run's checkpoints are kept under its
    digest."""
    training = {name: value for name, value in recorded["training"].items() if name not in _HOW}
    read = {ROWS_READ: recorded[ROWS_READ]} if ROWS_READ in recorded else {}
    return {"model": recorded["model"], "training": training} | read


def _inputs(params: PipelineParams, shards: Artifact, start: Artifact | None) -> dict[str, Any]:
    parents = {"shards": shards.digest, "base": base_fingerprint(params.model)}
    if start is not None:
        parents["checkpoint"] = start.digest
    read = rows_read(start.manifest, shards.digest) if start else 0
    recorded = stage_params(params) | ({ROWS_READ: read} if read else {})
    return {"stage": STAGE, "params": recorded, "code_version": CODE_VERSION, "parents": parents}


def find(params: PipelineParams, storage: Storage, shards: Artifact, start: Artifact | None = None) -> Artifact | None:
    """The checkpoint of an earlier run with the same parameters, or None."""
    return storage.find(KIND, stage_digest(**_inputs(params, shards, start)))


def find_earlier(
    params: PipelineParams, storage: Storage, shards: Artifact, start: Artifact | None = None
) -> tuple[Artifact | None, str]:
    """The checkpoint of a training stage before the last one, and what to tell the user about it ("" where that is nothing).

    Found as by `find`, or else one of equal steps that were computed in another way, such as by more workers: the stages after it
    start from the weights that are there. Of several, that with the smallest digest.
    """
    inputs = _inputs(params, shards, start)
    if found := storage.find(KIND, stage_digest(**inputs)):
        return found, ""
    steps = stage_digest(**inputs | {"params": trajectory_of(inputs["params"])})
    for manifest in storage.manifests(KIND):
        if manifest.stage == STAGE and _steps_of(manifest) == steps:
            differences = ", ".join(_differences(inputs["params"], manifest.params))
            text = f"the stage to {params.model.target_length} tokens was trained before with another {differences}"
            with contextlib.suppress(UserError):  # damaged: another one may be whole, or this stage is trained
                if found := storage.find(KIND, manifest.digest):
                    return found, f"finetune: {text}; {KIND}/{manifest.digest} is used"
    return None, ""


def _steps_of(checkpoint: Manifest) -> str:
    """The digest of what decides a checkpoint's steps, under which its work was kept."""
    return stage_digest(STAGE, trajectory_of(checkpoint.params), checkpoint.code_version, checkpoint.parents)


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of the parameters that differ, as a user writes them."""
    found = [f"training.{name}" for name in _HOW if ours["training"].get(name) != theirs["training"].get(name)]
    workers = sorted((ours.keys() | theirs.keys()) - {"model", "training", _SHORT, ROWS_READ})
    return found + [f"ray.{name}" for name in workers if ours.get(name) != theirs.get(name)]


def run(
    params: PipelineParams, storage: Storage, shards: Artifact, progress: ProgressCallback, start: Artifact | None = None
) -> Artifact:
    """Fine-tune in one training stage, or find the checkpoint of an earlier run with the same parameters.

    `start` is the checkpoint artifact of the training stage before; None starts from the base.

    Raises:
        UserError: the base, the RoPE request or the kernels cannot be used; another run trains the same; the loss is not finite;
            the cluster cannot be reached or does not see the storage.
    """
    inputs = _inputs(params, shards, start)
    work = storage.root / "work" / STAGE / stage_digest(**inputs | {"params": trajectory_of(inputs["params"])})
    parts_key = stage_digest(**inputs | {"stage": "short-factors"})

    def make(directory: Path) -> dict[str, Any]:
        shards.check()
        _refuse_short_rows(params, shards.path)
        plan = checkpoint_plan(params.model)
        check_short_windows(params)
        progress(message(f"finetune: {plan.method} x{plan.factor:g}, {plan.reason}"))
        if start is not None:
            start.check()
            progress(message(f"finetune: to {plan.target_length} tokens, from the weights of {KIND}/{start.digest}"))
        if note := params.training.warm_up_note:
            progress(message(f"finetune: {note}"))
        short: dict[str, Any] = {}
        samples = short_samples(params, plan, storage, shards)
        if params.training.find_short_factors and samples is None:
            progress(message(f"finetune: {plan.method} has one list for all prompts, so none is looked for short ones"))
        trained = _same_training(storage, inputs)
        if trained is not None:
            progress(message(f"finetune: trained already, as {KIND}/{trained.digest}"))
            left_out = shutil.ignore_patterns(MANIFEST_NAME, SHORT_FACTORS_NAME)
            shutil.copytree(trained.path, directory, dirs_exist_ok=True, ignore=left_out)
        else:
            _report_executor(params, progress)
            with _alone(work):
                _fit(params, storage, shards, work, progress, start)
                _take(work, directory)
        if samples is not None:
            found = find_short_factors(params, plan, samples, directory, storage, parts_key, progress)
            plan, short = plan.with_short_factors(found.short_factor), {"short_factors": found.verdict}
        chosen = read_full_layers(directory)
        if chosen is not None:
            progress(message(f"finetune: {chosen.describe()}"))
        _name_base(directory / ADAPTER_DIR / "adapter_config.json", params.model.base)
        (directory / "rope_plan.json").write_text(plan.to_json())
        load_tokenizer(params.model).save_pretrained(str(directory / "tokenizer"))
        last = json.loads((directory / LOG_NAME).read_text().splitlines()[-1])
        waiting = {"waiting_for_ranks": rank_waiting(params, shards.path)}
        full = {} if chosen is None else {"full_attention": chosen.recorded()}
        before = {} if start is None else {EARLIER_STAGES: stages_up_to(start.manifest)}
        retrieved = shards.manifest.summary.get("retrieval")
        weight = params.retrieval.answer_weight if params.retrieval.share else None  # given shards may have a mix all the same
        mix = {RETRIEVAL: mix_of(retrieved, weight)} if retrieved else {}
        return (
            {"rope_method": plan.method, "factor": plan.factor, "steps": params.training.steps}
            | full
            | short
            | mix
            | before
            | waiting
            | last
        )

    artifact = storage.build(KIND, make=make, **inputs)
    if params.training.find_short_factors:
        storage.drop_parts(parts_key, was_finished=artifact.reused)
    if not artifact.reused:
        with contextlib.suppress(UserError), _alone(work):  # with another worker count, another run may be training here
            shutil.rmtree(work, ignore_errors=True)
    return artifact


def _same_training(storage: Storage, inputs: dict[str, Any]) -> Artifact | None:
    """A finished checkpoint that differs only in what was measured for short prompts after training; None if there is none."""
    wanted = stage_digest(**inputs | {"params": _trained_with(inputs["params"])})
    for manifest in storage.manifests(KIND):
        recorded = manifest.stage, manifest.code_version, manifest.parents
        if recorded != (STAGE, inputs["code_version"], inputs["parents"]):
            continue
        if stage_digest(**inputs | {"params": _trained_with(manifest.params)}) == wanted:
            with contextlib.suppress(UserError):  # damaged: another one may be whole, or it is trained anew
                if found := storage.find(KIND, manifest.digest):
                    found.check()
                    return found
    return None


def _trained_with(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """`stage_params` without what is done after training."""
    training = {name: value for name, value in recorded["training"].items() if name != "find_short_factors"}
    others: dict[str, Any] = {name: value for name, value in recorded.items() if name != _SHORT}
    return others | {"training": training}


def _refuse_short_rows(params: PipelineParams, shards: Path) -> None:
    """UserError if a row has fewer tokens than the workers that would share it."""
    from tasks.pack.reading import open_rows

    workers = params.ray.sequence_workers
    for folder in (shards, shards / "heldout") if workers > 1 else ():
        rows = open_rows(folder)
        shortest = min((int(rows.row(i)["seq_lengths"].sum()) for i in range(len(rows))), default=workers)
        if shortest < workers:
            raise UserError(
                f"A row in {folder} has {shortest} tokens, so {workers} workers cannot share it: lower ray.sequence_workers, or leave "
                "very short documents out of the corpus."
            )


def _report_executor(params: PipelineParams, progress: ProgressCallback) -> None:
    """Report which kernel will compute S2-Attn, only where the workers have this device, and which norms a kernel computes.

    UserError for a kernel that cannot run.
    """
    import torch

    from ray_jobs.finetune.executors import describe_executor
    from ray_jobs.finetune.training.lora import describe_norm_kernel
    from tasks.model.base_model import load_config

    is_like_workers = not params.ray.use_gpu or torch.cuda.is_available()
    if is_like_workers:
        device = torch.device("cuda" if params.ray.use_gpu else "cpu")
        progress(message(f"finetune: {describe_executor(load_config(params.model), params.training, device)}"))
    if norms := describe_norm_kernel(params):
        progress(message(f"finetune: norms: {norms}"))


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the lock of `work`; UserError while another run trains there. The kernel frees the lock of a killed run."""
    work.mkdir(parents=True, exist_ok=True)
    lock = work / "lock"
    with locked_at_once(lock) as is_free:
        if not is_free:
            who = holder_of(lock)
            raise UserError(f"Another run ({who}) trains with the same parameters in {work}: wait for it, or stop it first.")
        yield


def rank_waiting(params: PipelineParams, shards: Path) -> list[dict[str, float]]:
    """How much longer attention takes than if ranks never waited, for 2, 4 and 8 ranks where a step has a row for each.

    `before`: with rows dealt in turn; `after`: as training deals them.
    """
    from ray_jobs.finetune.grouped_layers import base_layers_in_groups
    from ray_jobs.finetune.training.balance import imbalance
    from ray_jobs.finetune.training.batches import costs_of_rows
    from ray_jobs.finetune.training.objective import group_size_at
    from tasks.model.base_model import load_config
    from tasks.pack.reading import open_rows

    rows, training = open_rows(shards), params.training
    if len(rows) < training.rows_per_step:
        return []
    config = load_config(params.model).get_text_config()
    layers = config.num_hidden_layers
    share = num_full_layers(training, layers, num_kv_heads_of(config), base_layers_in_groups(params)) / layers
    costs = costs_of_rows(rows, range(len(rows)), group_size_at(0, params), share)
    sizes = [size for size in (2, 4, 8) if size <= training.rows_per_step]
    return [imbalance(costs, training.rows_per_step, n, training.seed, training.balance_steps).to_json() for n in sizes]


def _name_base(adapter_config: Path, base: str) -> None:
    """Record the base by the name that the user gave, not by this machine's folder, and the targets in a stable order."""
    content = json.loads(adapter_config.read_text())
    content["base_model_name_or_path"] = Path(base).name if Path(base).expanduser().exists() else base
    for names in ("target_modules", "modules_to_save"):
        if isinstance(content.get(names), list):
            content[names] = sorted(content[names])
    adapter_config.write_text(json.dumps(content, indent=2, sort_keys=True))


def _take(work: Path, directory: Path) -> None:
    """Copy the result of the finished training in `work`: the adapter of its last checkpoint, its logs and events."""
    from ray_jobs.finetune.training.checkpoint import last_complete

    checkpoint = last_complete(work / _RAY_DIR)
    if checkpoint is None:
        raise RuntimeError(f"training ended without a checkpoint below {work}")
    shutil.copytree(checkpoint / ADAPTER_DIR, directory / ADAPTER_DIR)
    (directory / ADAPTER_DIR / "README.md").unlink(missing_ok=True)  # peft's template; the release has its own card
    if (checkpoint / FULL_LAYERS_FILE).exists():
        shutil.copy(checkpoint / FULL_LAYERS_FILE, directory / FULL_LAYERS_FILE)
    for name in (LOG_NAME, PROGRESS_NAME):
        shutil.copy(work / name, directory / name)
    shutil.copytree(work / TENSORBOARD_DIR, directory / TENSORBOARD_DIR)


def _fit(
    params: PipelineParams,
    storage: Storage,
    shards: Artifact,
    work: Path,
    progress: ProgressCallback,
    start: Artifact | None,
) -> None:
    """Run Ray Train to the end, from the last checkpoint below `work`, else from `start`, else from the base."""
    from ray_jobs.finetune.training.checkpoint import last_complete

    fewest, most = params.ray.min_workers, params.ray.num_workers
    num_workers: Any = (fewest, most) if fewest else most  # Ray accepts a pair, its annotation does not
    progress(
        TrainingStarted(
            ray_address=params.ray.address,
            num_workers=most,
            min_workers=fewest,
            progress_file=str(work / PROGRESS_NAME),
            tensorboard_folder=str(work / TENSORBOARD_DIR),
        )
    )
    _drop_torn_lists(work / _RAY_DIR)
    unlisted = last_complete(work / _RAY_DIR)
    refusal = work / REFUSAL
    refusal.unlink(missing_ok=True)
    with connected(params.ray), Follower(work, params.training.steps, progress):
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
        from ray.train.torch import TorchTrainer

        from ray_jobs.finetune.worker_group import torch_config

        refuse_unshared(params, storage, parts_only=False)
        trainer = TorchTrainer(
            train_on_worker,
            train_loop_config={
                "params": absolute_paths(params).model_dump(mode="json"),
                "shards": str(shards.path),
                "work": str(work),
                "unlisted": str(unlisted) if unlisted else None,
                "start": str(start.path / ADAPTER_DIR) if start else None,
                ROWS_READ: rows_read(start.manifest, shards.digest) if start else 0,
            },
            torch_config=torch_config(),
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=params.ray.use_gpu,
                resources_per_worker={"CPU": params.ray.cpus_per_worker} | ({"GPU": 1} if params.ray.use_gpu else {}),
            ),
            run_config=RunConfig(
                name=_RAY_DIR,
                storage_path=str(work),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                failure_config=FailureConfig(max_failures=_ELASTIC_FAILURES if fewest else _FAILURES),
            ),
        )
        try:
            interruptibly(trainer.fit)
        except WorkerGroupError as error:
            if (told := _told(list(error.worker_failures.values()))) is not None:
                raise told from error
            raise
        finally:
            if refusal.exists():
                raise UserError(refusal.read_text(encoding="utf-8"))


def _told(failures: Sequence[BaseException]) -> UserError | None:
    """The sentence for what ended the workers; None where the traceback is all that is known."""
    for failure in failures:
        if isinstance(failure, UserError):
            return failure
    if any(map(is_out_of_memory, failures)):
        return UserError(
            "A training worker ran out of memory: lower training.micro_batch_rows, set training.kept_layers to 0 or "
            "training.activation_offload to true, or choose a shorter packing.row_length, then start the run again; it goes on from its "
            "last checkpoint."
        )
    if any(isinstance(failure, WorkerLostError) for failure in failures):
        return UserError(
            f"Training stopped after workers were lost {_FAILURES + 1} times, the last time because another worker did not answer: look "
            "at the workers' memory and network, or raise ray.exchange_timeout_s, then start the run again; it goes on from its last "
            "checkpoint."
        )
    return None


def _drop_torn_lists(folder: Path) -> None:
    """Remove broken lists of checkpoints: Ray writes them in place, and one torn by a kill or a full disk would stop every later
    run. The checkpoints themselves stay and are found without the list."""
    for snapshot in folder.glob("*.json"):
        try:
            json.loads(snapshot.read_text())
        except ValueError:
            snapshot.unlink()
