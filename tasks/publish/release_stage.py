"""The publish stage: assemble and verify in a staging folder, rename it, move `current` if the version is to be served, copy to
destinations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback, message
from data_schemas.releases import version_kind
from data_schemas.report import read_report
from data_schemas.rope_search import LAST_SEARCH, SEARCHES
from data_schemas.storage import Artifact, Storage
from tasks.evaluate.report.result_files import REPORT_NAME
from tasks.model.quiet import quiet_transformers
from tasks.publish.assemble import ReleaseParts, assemble
from tasks.publish.base_identity import BaseIdentity, identify
from tasks.publish.decision import decide
from tasks.publish.destinations.delivery import Delivery, check_destinations, deliver
from tasks.publish.destinations.pointer import Pointed, how_to_serve
from tasks.publish.portable import files_naming, portable
from tasks.publish.releases import current_digest, keep_back, point_current
from tasks.publish.summary import release_summary
from tasks.publish.verify import Check, check_files, failures, verify_staged

STAGE = "publish"
CODE_VERSION = 8
_WHERE = (
    "destinations",
    "hub_pull_request",
    "hub_private",
    "token_secret",
)  # not in the digest: a destination does not change the release
_WHETHER = (
    "current",
    "min_effective_length",
    "min_task_scores",
    "max_short_context_loss",
    "min_long_context_gain",
)  # not in the digest: whether it is served does not change it either


def run(
    params: PipelineParams,
    storage: Storage,
    documents: Artifact,
    shards: Artifact,
    checkpoint: Artifact,
    evaluation: Artifact,
    progress: ProgressCallback,
    seen: Callable[[Check | Delivery], None] = lambda _: None,
    token: SecretStr | None = None,
    advice: Artifact | None = None,
    searches: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """Publish the model of `checkpoint` as a version of `params.release_name`, here and at every destination.

    `current` moves to it if it is to be served (`tasks.publish.decision`). Raises UserError if the
    verification fails; then no version is written. A version that is already there is not written again, and a rolled-back one does
    not become current. If a destination fails, a UserError is raised after all others have the release. `seen` gets each check and
    each delivery. `token` is the content of `params.publish.token_secret`; only the hub's client gets it, and it is stored nowhere.
    `advice`: its `serving_advice.json` becomes a file of the release. `searches`: the searches of RoPE factors of this run, by name;
    `rope_search` is the one whose result the model has.
    """
    check_destinations(params.publish)
    if params.publish.token_secret and token is None:
        raise UserError("Only Prefect flows can read publish.token_secret: run one, or leave it out and set HF_TOKEN.")
    base = identify(params.model)
    plan_file = checkpoint.path / "rope_plan.json"
    report = read_report(evaluation.path / REPORT_NAME)
    decision = decide(params, report)

    stages = {"documents": documents, "shards": shards, "checkpoint": checkpoint, "evaluation": evaluation}
    stages |= ({"advice": advice} if advice else {}) | dict(searches or {})
    digest_params = release_params(params, base)
    parents = {name: artifact.digest for name, artifact in stages.items()} | {"base": base.fingerprint}
    digest = stage_digest(STAGE, digest_params, CODE_VERSION, parents)

    def make(directory: Path) -> dict[str, Any]:
        from tasks.model.extended import load_arm
        from tasks.model.rope_plan import RopePlan

        for artifact in stages.values():
            artifact.check()
        progress(message("publish: merging the adapter into the base"))
        plan = RopePlan.from_json(plan_file.read_text(encoding="utf-8"))
        if (search := stages.get(LAST_SEARCH)) is not None:
            plan = plan.chosen_by_search(f"{SEARCHES}/{search.digest}")
        elif params.model.rope_method != "auto":
            plan = plan.asked_for()
        parts = ReleaseParts(
            params=params,
            base=base,
            base_window=report.settings.base_window,
            plan=plan,
            checkpoint=checkpoint.path,
            evaluation=evaluation.path,
            advice=advice.path if advice else None,
            report=report,
            stages={name: artifact.manifest for name, artifact in stages.items()},
            release={"name": params.release_name, "digest": digest, "code_version": CODE_VERSION, "params": digest_params},
        )
        with quiet_transformers():
            model = load_arm(params, "fine_tuned", checkpoint.path)
            progress(message("publish: writing the release"))
            rounding = assemble(directory, model, _tokenizer(checkpoint.path), parts, progress)
        progress(message(f"publish: {rounding.describe()}"))
        progress(message("publish: verifying it by reloading"))
        _refuse_local_paths(directory, storage, base)
        _require(verify_staged(directory), "was not published", seen)
        if params.publish.signing_key is not None:
            from tasks.publish.signing import private_key, sign

            signer = sign(directory, private_key(Path(params.publish.signing_key).expanduser()))
            progress(message(f"publish: signed by {signer}"))
        return release_summary(directory)

    release = storage.build(
        version_kind(params.release_name),
        stage=STAGE,
        params=digest_params,
        code_version=CODE_VERSION,
        parents=parents,
        make=make,
    )
    is_moving = decision.is_to_serve and current_digest(storage, params.release_name) != release.digest
    if release.reused and (is_moving or params.publish.destinations):
        _require(check_files(release.path), f"is damaged, so delete {release.path} and publish again", seen)
    place_it = point_current if decision.is_to_serve else keep_back
    pointed = place_it(storage, params.release_name, release.digest)
    progress(message(f"publish: {params.release_name} {_standing(params, release, pointed)}: {release.path}"))
    is_served = decision.is_to_serve or current_digest(storage, params.release_name) == release.digest  # also by `rollback`
    for delivery in deliver(params.release_name, release.path, params.publish, progress, token, is_to_serve=is_served):
        seen(delivery)
    return release


def release_params(params: PipelineParams, base: BaseIdentity) -> dict[str, Any]:
    """The parameters that a release depends on besides its parents."""
    recorded = {
        "name": params.release_name,
        "publish": params.publish.model_dump(mode="json", exclude={"name", "signing_key", *_WHERE, *_WHETHER}),
        "chunking": params.chunking.recorded(),
        "training": params.training.recorded(),
        "sources": [{"uri": source.uri, "licence": source.licence} for source in params.corpus.sources],
        "target_length": params.model.target_length,
        "base": {"name": base.name, "revision": base.revision, "licence": base.licence},
    }
    if params.publish.signing_key is not None:  # another key makes another version
        from tasks.publish.signing import fingerprint, private_key

        key = private_key(Path(params.publish.signing_key).expanduser())
        recorded["signed_by"] = fingerprint(key.public_key())
    return portable(recorded)


def _standing(params: PipelineParams, release: Artifact, pointed: Pointed) -> str:
    state = "is unchanged" if release.reused else "is verified"
    if pointed is Pointed.ROLLED_BACK:
        return f"{state}; {how_to_serve(params.storage, params.release_name, release.digest)}"
    if pointed is Pointed.HELD_BACK:
        return f"{state} and kept, but not served"
    return f"{state} and current"


def _tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint / "tokenizer", local_files_only=True)


def _refuse_local_paths(directory: Path, storage: Storage, base: BaseIdentity) -> None:
    private = [str(storage.root), str(base.folder)]
    if named := files_naming(directory, tuple(private)):
        raise UserError(
            f"The release was not published: {', '.join(named)} would name a folder of this machine: report this as a bug."
        )


def _require(checks: list[Check], consequence: str, seen: Callable[[Check], None]) -> None:
    for check in checks:
        seen(check)
    if failed := failures(checks):
        raise UserError(f"The release {consequence}; verification found: {'; '.join(failed)}.")
