"""Gates that no model could pass are refused before any work."""

from typing import Any

import pytest

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.evaluate.report.gates import refuse_impossible

WINDOW, TARGET = 512, 2048


def asked(publish: dict[str, Any], **evaluation: Any) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "t",
            "corpus": {"sources": ["x"]},
            "model": {"base": "b", "target_length": TARGET},
            "publish": publish,
            "evaluation": evaluation,
        }
    )


@pytest.mark.parametrize(
    ("publish", "evaluation", "sentence"),
    [
        (
            {"min_task_scores": {"passkye": 0.1}},
            {},
            "names passkye, but evaluation.tasks are passkey, key_value: correct the name",
        ),
        ({"min_task_scores": {"passkey": 0.1}}, {"task_lengths": [1024]}, "add 2048 to evaluation.task_lengths"),
        (
            {"min_task_scores": {"passkey": 0.7}},
            {"num_samples": 8},
            r"bound of 0\.676 on 8 samples: set evaluation.num_samples to at least 9",
        ),
        ({"min_effective_length": 4096}, {}, "4096, above model.target_length 2048: lower it"),
        ({"min_effective_length": 2048}, {"lengths": [512, 1024]}, "longest of evaluation.lengths is 1024: add 2048"),
        ({"min_effective_length": 1024}, {"lengths": [1024, 2048]}, "from the base's window on: add 512"),
        ({"max_short_context_loss": 0.1}, {"lengths": [2048]}, "judged at 512 tokens: add that to evaluation.lengths"),
        ({"min_long_context_gain": 0.1}, {"lengths": [512]}, "judged at 2048 tokens: add that to evaluation.lengths"),
        ({"min_long_context_gain": 0.1}, {"lengths": [2048]}, "judged at 512 tokens: add that to evaluation.lengths"),
        ({"min_long_context_gain": 0.1}, {"arms": ["base", "fine_tuned"]}, "compares with scaling only: add scaling_only"),
        ({"min_long_context_gain": 0.1}, {"arms": ["fine_tuned"]}, "compares base and fine-tuned model: add both"),
    ],
)
def test_what_no_model_could_pass_is_refused(publish: dict[str, Any], evaluation: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_impossible(asked(publish, **evaluation), WINDOW)


def test_gates_that_can_be_judged_are_not() -> None:
    gates = {"min_effective_length": 2048, "max_short_context_loss": 0.1, "min_long_context_gain": 0.0}
    refuse_impossible(asked(gates | {"min_task_scores": {"passkey": 0.67}}), WINDOW)
    refuse_impossible(asked({}), WINDOW)
