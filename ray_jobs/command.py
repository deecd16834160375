"""What the jobs' command lines share: parameters in, progress and a path out, one sentence on a user's error."""

from __future__ import annotations

import sys
from collections.abc import Callable

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.params import load_params

Stage = Callable[[PipelineParams, Storage, Callable[[str], None]], Artifact]


def run_command(params_text: str, stage: Stage) -> None:
    """Run `stage` and print its artifact's path last; exit with status 2 and one sentence for what the user can mend."""
    try:
        params = load_params(params_text)
        artifact = stage(params, Storage(params.storage), tell)
    except UserError as error:
        sys.exit(_refuse(error))
    tell(f"{'found' if artifact.reused else 'made'} {artifact.manifest.stage} {artifact.digest}")
    print(artifact.location, flush=True)


def tell(line: str) -> None:
    """Progress goes to standard error, results to standard output."""
    print(line, file=sys.stderr, flush=True)


def _refuse(error: UserError) -> int:
    tell(f"error: {error}")
    return 2
