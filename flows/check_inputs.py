"""The checks before a run: everything that can be refused without Prefect and without Ray.

`ray_jobs.preflight` holds the part that a single Ray job repeats. `check_parameters` adds gates, and is all that `ropeway plan` checks too.
`check_inputs` adds what depends on the machine: its devices and packages, corpus, storage and destinations.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from ray_jobs.finetune.proof.prove import Proof


def check_parameters(params: PipelineParams) -> "Proof":
    """The proof of the base. UserError if base model, RoPE method, training, packing or gates cannot work, on whatever machine."""
    from ray_jobs.preflight import refuse_at_once, refuse_untrainable

    refuse_at_once(params)  # before imports that take seconds
    from tasks.evaluate.report.gates import refuse_impossible
    from tasks.model.extended import base_window
    from tasks.rope_search.plans import with_stand_in

    proof = refuse_untrainable(params)  # looks at each training stage by itself, with a stand-in only where that one searches
    params = with_stand_in(params)
    refuse_impossible(params, base_window(params.model))
    return proof


def check_inputs(params: PipelineParams, *, trains: bool = True, advises: bool = False) -> None:
    """UserError if machine, base model, RoPE method, corpus, storage, evaluation, gates or destinations cannot work.

    `trains`: whether the run may train or measure, which the machine must be able to do. Preparing data needs no GPU.
    `advises`: whether it asks questions for the advice, which needs its files.
    """
    if trains:
        from ray_jobs.machine_checks import refuse_impossible_machine

        refuse_impossible_machine(params)  # before anything is imported that takes seconds
    from ray_jobs.preflight import refuse_at_once, refuse_unadvisable, refuse_unaskable

    refuse_at_once(params)
    from ray_jobs.submit.submission import is_submitted
    from tasks.ingest.corpus_units import refuse_missing

    Storage(params.storage)
    if not is_submitted(params.ray):  # else only the cluster sees the corpus
        refuse_missing(params.corpus)
    from tasks.publish.destinations.delivery import check_destinations
    from tasks.rope_search.plans import with_stand_in

    if advises:
        refuse_unadvisable(with_stand_in(params))  # before the base is proven, which takes seconds
    check_parameters(params)
    refuse_unaskable(with_stand_in(params))
    check_destinations(params.publish)
    if params.publish.signing_key is not None:
        from tasks.publish.signing import private_key

        private_key(Path(params.publish.signing_key).expanduser())
