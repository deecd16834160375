"""Which weights train: experts and routers of mixtures, ends of an untied model, and vocabularies that were resized."""

import copy
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.checkpoint_stage import stage_params
from ray_jobs.finetune.training.lora import add_trainable_weights, trainable
from ray_jobs.finetune.training.targets import (
    expert_names,
    linear_names,
    lora_places,
    refuse_by_tensor,
    resolve_targets,
    router_names,
)
from ray_jobs.finetune.training.training_model import build_model
from tasks.model.extended import ADAPTER_DIR, load_arm, merge_adapter
from tasks.model.vocabulary import refuse_unknown_ids
from tests.ray_jobs.finetune.training_example import CPU, make_params, write_base
from tests.tiny_models import tiny_config

SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
MIXTURES: dict[str, tuple[dict[str, Any], list[str]]] = {  # what they need beside the sizes, and the ends of their routers' names
    "MixtralConfig": ({"num_local_experts": 4}, []),
    "PhimoeConfig": ({"num_local_experts": 4}, ["mlp.router"]),
    "Qwen2MoeConfig": ({"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
                       ["mlp.shared_expert_gate"]),
    "AfmoeConfig": ({"num_experts": 4, "moe_intermediate_size": 8, "num_dense_layers": 0, "head_dim": 8}, ["router.gate"]),
}  # fmt: skip


def mixture(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(getattr(transformers, name)(**(SIZES | MIXTURES[name][0])))


def trained_names(model: Any) -> set[str]:
    return {name for name, _ in trainable(model)}


@pytest.mark.parametrize("name", list(MIXTURES))
def test_all_linear_leaves_routers_alone(name: str) -> None:
    model = mixture(name)
    routers = router_names(model)
    assert routers == MIXTURES[name][1]
    layers = {*linear_names(model), *(tensor.rpartition(".")[0] for tensor in expert_names(model))}
    trained = trained_names(
        add_trainable_weights(model, TrainingParams(lora_targets=("all-linear",), train_norms=False, train_embeddings="none"))
    )
    with_lora = {one.partition(".lora_A")[0].removeprefix("base_model.model.").removesuffix(".base_layer") for one in trained}
    with_lora = {one for one in with_lora if ".lora_B" not in one}
    assert with_lora == {layer for layer in layers if not any(layer.endswith(f".{router}") for router in routers)}


def test_a_model_without_experts_has_no_routers() -> None:
    assert router_names(AutoModelForCausalLM.from_config(tiny_config("llama"))) == []


def test_experts_are_named_trained_merged_and_reloaded(tmp_path: Any) -> None:
    base = mixture("Qwen2MoeConfig")
    names = [*linear_names(base), *expert_names(base)]
    assert lora_places(base, ("q_proj", "gate_proj")) == (["q_proj"], ["gate_proj.weight"]), "peft would rewrite this name"
    assert resolve_targets(("gate_proj",), names, "Qwen2Moe") == ("gate_proj",), "the shared expert's, which is a linear layer"
    only_experts = expert_names(mixture("MixtralConfig"))
    assert resolve_targets(("gate_proj", "down_proj"), only_experts, "M") == ("experts.gate_up_proj", "experts.down_proj")
    with pytest.raises(UserError, match=r"names experts\.w9, .* choose from .*experts\.down_proj, experts\.gate_up_proj"):
        resolve_targets(("experts.w9",), names, "Qwen2Moe")

    training = TrainingParams(lora_targets=("q_proj", "gate_proj", "experts.gate_proj", "experts.down_proj"), lora_rank=2)
    for wrong in ({"lora_dropout": 0.1}, {"dora": True}):
        with pytest.raises(
            UserError, match=r"includes .*experts\.gate_up_proj.* cannot be trained with training\.(lora_dropout|dora)"
        ):
            add_trainable_weights(copy.deepcopy(base), training.model_copy(update=wrong))
    model = add_trainable_weights(copy.deepcopy(base), training).train()
    experts = [weight for name, weight in trainable(model) if "experts" in name and "lora_B" in name]
    assert len(experts) == 2
    for _, weight in trainable(model):
        torch.nn.init.normal_(weight, std=0.2)
    ids = torch.randint(0, 64, (1, 20))
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in experts)
    trained = model.eval()(input_ids=ids).logits
    model.save_pretrained(str(tmp_path / "adapter"))
    merged = merge_adapter(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(merged(ids).logits, trained, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(again(ids).logits, merged(ids).logits)


@pytest.mark.parametrize(
    ("ends", "tied", "input_trains", "head_trains"),
    [("input", False, True, False), ("both", False, True, True), ("none", False, False, False), ("input", True, True, True)],
)
def test_embeddings_of_the_input_alone_may_train(ends: Any, tied: bool, input_trains: bool, head_trains: bool) -> None:
    model = AutoModelForCausalLM.from_config(tiny_config("llama", tie_word_embeddings=tied))
    wrapped = add_trainable_weights(model, TrainingParams(train_embeddings=ends))
    base = wrapped.get_base_model()
    for end, trains in ((base.get_input_embeddings(), input_trains), (base.get_output_embeddings(), head_trains)):
        weights = [p for p in end.parameters() if p.requires_grad]
        assert bool(weights) is trains


def test_old_values_are_read_and_old_runs_keep_their_digests(tmp_path: Any) -> None:
    for before, now in ((True, "both"), (False, "none")):
        assert TrainingParams(train_embeddings=before).train_embeddings == now  # type: ignore[arg-type]
        recorded = stage_params(make_params(tmp_path, train_embeddings=now))["training"]["train_embeddings"]
        assert recorded is before
    assert TrainingParams().train_embeddings == "both"
    assert stage_params(make_params(tmp_path, train_embeddings="input"))["training"]["train_embeddings"] == "input"
    with pytest.raises(ValidationError, match="train_embeddings"):
        TrainingParams(train_embeddings="head")  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [False, True])
def test_a_vocabulary_that_was_enlarged_is_trained_merged_and_reloaded(tied: bool, tmp_path: Any, tokenizer: Any) -> None:
    """The rows behind the tokenizer's last id are padding; they must survive unchanged in number."""
    largest = max(tokenizer.get_vocab().values())
    refuse_unknown_ids(tokenizer, tiny_config("llama", vocab=largest + 1), "x")
    with pytest.raises(UserError, match=rf"ids up to {largest}, but the model has only {largest} embeddings: enlarge them"):
        refuse_unknown_ids(tokenizer, tiny_config("llama", vocab=largest), "x")
    folder = write_base(tmp_path / "base", tokenizer, tied=tied)
    resized = AutoModelForCausalLM.from_pretrained(folder)
    resized.resize_token_embeddings(391, mean_resizing=False)
    resized.save_pretrained(folder)
    params: PipelineParams = make_params(folder, gradient_checkpointing=False)
    model = build_model(params, CPU)
    for _, weight in trainable(model):
        torch.nn.init.normal_(weight, std=0.1)
    ids = torch.arange(371, 391)[None]
    trained = model.eval()(input_ids=ids, use_cache=False).logits
    model.save_pretrained(str(tmp_path / "checkpoint" / ADAPTER_DIR))
    merged = load_arm(params, "fine_tuned", tmp_path / "checkpoint")
    torch.testing.assert_close(merged(ids).logits, trained, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert again.get_input_embeddings().weight.shape[0] == again.config.vocab_size == 391
    torch.testing.assert_close(again(ids).logits, merged(ids).logits)


def test_lora_by_tensor_needs_the_tensor() -> None:
    """In a model with experts LoRA is added to a linear layer's weight, which a base in fewer bits does not hold; experts stay."""
    refuse_by_tensor(["experts.gate_up_proj", "shared_expert.gate_proj.weight"], False, False)
    refuse_by_tensor(["experts.gate_up_proj"], False, False, "nf4")
    with pytest.raises(UserError, match=r"shared_expert\.gate_proj\.weight.*base_precision nf4 holds no such tensor"):
        refuse_by_tensor(["experts.gate_up_proj", "shared_expert.gate_proj.weight"], False, False, "nf4")
