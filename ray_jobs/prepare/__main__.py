"""Read the corpus, chunk it and pack it into shards, on Ray Data.

Prints progress on standard error and the artifact's place on standard output. An artifact that an earlier run made is reused.
"""

from __future__ import annotations

from functools import partial

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    parser = job_parser("prepare", __doc__, ("documents",))
    parser.add_argument(
        "--until", choices=("documents", "shards"), default="shards", help="`documents` stops after the corpus is read"
    )
    arguments = parser.parse_args()
    run_command(arguments, partial(prepare, until=arguments.until))


def prepare(
    params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given | None = None, until: str = "shards"
) -> Artifact:
    """Ingest, chunk and pack; tables of the result go to standard error. `given` may hold the documents already."""
    from rich.console import Console

    from ray_jobs.prepare.job import make_documents, make_shards
    from tasks.pack.inspection.prepared import show_prepared

    if until == "documents":
        if given:
            raise UserError("--given documents and --until documents together leave nothing to do: leave one of them out.")
        return make_documents(params, storage, progress)
    documents, shards = make_shards(params, storage, progress, (given or {}).get("documents"))
    show_prepared(documents.manifest, shards.manifest, Console(stderr=True))
    return shards


if __name__ == "__main__":
    main()
