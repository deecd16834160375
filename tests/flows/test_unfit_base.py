"""Plan and run refuse a base whose weights do not fit before they do anything else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from flows.check_inputs import check_inputs
from flows.commands.plan import print_plan
from tests.flows.small_run import small_params


@pytest.mark.parametrize("command", [print_plan, check_inputs])
def test_a_base_that_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, command: Callable[[PipelineParams], None]
) -> None:
    params = PipelineParams.model_validate(small_params(tmp_path, tokenizer))
    file = Path(params.model.base) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 7}))
    with pytest.raises(UserError, match=r"do not fit its config.json \(LlamaForCausalLM\): .* tensors are not in the files"):
        command(params)
    assert not Path(params.storage).exists()


def test_a_plan_says_that_a_bases_own_code_is_not_run(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    params = PipelineParams.model_validate(small_params(tmp_path, tokenizer))
    file = Path(params.model.base) / "config.json"
    own = {"auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    print_plan(params)
    assert "not run (modeling_llama.LlamaForCausalLM): transformers has this class itself" in capsys.readouterr().out
