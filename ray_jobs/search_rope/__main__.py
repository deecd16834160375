"""Search RoPE factors for a base and a target length, for model.rope_method longrope without a factors file.

The corpus is read first where that is missing. Prints progress on standard error and the search's place on standard output. An
interrupted search continues with what was measured. `--given checkpoints=DIGEST` searches on the model of that checkpoint.
"""

from __future__ import annotations

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    run_command(job_parser("search_rope", __doc__, ("documents", "checkpoints")).parse_args(), _search)


def _search(params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given) -> Artifact:
    from ray_jobs.preflight import refuse_samples
    from ray_jobs.prepare.job import make_documents
    from ray_jobs.search_rope import search_stage as stage
    from tasks.model.base_model import load_tokenizer
    from tasks.rope_search.plans import as_search, space_of

    params = as_search(params)
    space_of(params)  # both refuse before a document is read
    refuse_samples(params, load_tokenizer(params.model))
    documents = given.get("documents") or make_documents(params, storage, progress)
    return stage.run(params, storage, documents, progress, given.get("checkpoints"))


if __name__ == "__main__":
    main()
