"""What can be refused before a server or a cluster is started."""

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage


def check_inputs(params: PipelineParams) -> None:
    """UserError for a base model, a RoPE request, a corpus, settings of a stage or a storage root that cannot work."""
    from ray_jobs.evaluate.lm_eval import refuse_unavailable
    from ray_jobs.finetune.base_model import check_weights, load_tokenizer
    from ray_jobs.finetune.extended import base_window, rope_plan_for
    from ray_jobs.finetune.lora import check_targets
    from ray_jobs.submission import is_submitted
    from tasks.evaluate.gates import refuse_impossible
    from tasks.evaluate.prompts.qa import read_qa
    from tasks.ingest.units import refuse_missing
    from tasks.pack.settings import check_settings
    from tasks.publish.destinations.delivery import check_destinations

    Storage(params.storage)
    rope_plan_for(params.model)
    check_weights(params.model)
    load_tokenizer(params.model)
    if not is_submitted(params.ray):  # else it is for the cluster to see
        refuse_missing(params.corpus)
    check_settings(params)
    refuse_unavailable(params.evaluation, params.evaluation.arms)
    refuse_impossible(params, base_window(params.model))
    check_targets(params)
    check_destinations(params.publish)
    if params.evaluation.qa_file:
        read_qa(params.evaluation.qa_file)
