"""A base whose weights are not those of its configuration is refused from the headers of its files, and again when it is loaded."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from tasks.model.base_model import check_weights, hub_tensors, load_base, load_config
from tasks.model.weight_files import stored_tensors
from tasks.model.weight_fit import refuse_partly_loaded
from tests.hub_release_server import TOKEN, Repository, hub_release_server
from tests.tiny_models import KINDS, tiny_config

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
Tensors = dict[str, torch.Tensor]


def write_base(folder: Path, kind: str = "llama", **more: Any) -> ModelParams:
    """Random weights that are read back as they are: loading a base must never fill in its own."""
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(tiny_config(kind, **more)).save_pretrained(folder)
    return ModelParams(base=str(folder), target_length=256)


def change_weights(base: ModelParams, change: Callable[[Tensors], Tensors]) -> None:
    file = Path(base.base) / FILE
    save_file(change(load_file(file)), file)


def change_config(base: ModelParams, **values: Any) -> None:
    file = Path(base.base) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def into_shards(base: ModelParams) -> list[str]:
    """Two files and an index, as a large base has; the names of the files."""
    folder = Path(base.base)
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    shards = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
    places = {name: shards["layers.1." in name] for name in tensors}
    for shard in shards:
        save_file({name: tensors[name] for name, place in places.items() if place == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return shards


def refused(base: ModelParams) -> str:
    """The sentence of the first second, which must be that of loading too."""
    with pytest.raises(UserError) as early:
        check_weights(base)
    with pytest.raises(UserError) as late:
        load_base(base)
    assert str(early.value) == str(late.value)
    return str(early.value)


@pytest.mark.parametrize("kind", list(KINDS))
def test_bases_of_every_promised_architecture_fit(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path, kind)
    check_weights(base)
    stored = load_file(tmp_path / FILE)
    loaded = load_base(base)
    for name in ("model.norm.weight", "model.layers.1.self_attn.o_proj.weight"):
        assert torch.equal(loaded.get_parameter(name), stored[name])


def renamed(tensors: Tensors) -> Tensors:
    return {f"transformer.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def as_integers(tensors: Tensors) -> Tensors:
    return {key: tensor.to(torch.int8) if "up_proj" in key else tensor for key, tensor in tensors.items()}


def as_8_bit_floats(tensors: Tensors) -> Tensors:
    return {key: tensor.to(torch.float8_e4m3fn) if "up_proj" in key else tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, ["model.embed_tokens.weight", "transformer.embed_tokens.weight", "LlamaForCausalLM"]),
        (without("model.layers.1.mlp.up_proj.weight"), ["1 of the model's 21 tensors", "model.layers.1.mlp.up_proj.weight"]),
        (lambda old: old | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, ["no place for 1", "q_proj.bias"]),
        (lambda old: old | {"model.norm.weight": torch.ones(31)}, ["model.norm.weight is [31] in the files and [32]"]),
        (as_integers, ["stored as I8", "up_proj", "unquantised"]),
        (as_8_bit_floats, ["stored as F8_E4M3", "up_proj", "unquantised"]),
    ],
)
def test_weights_that_are_not_those_of_the_model_are_refused(
    tmp_path: Path, change: Callable[[Tensors], Tensors], words: list[str]
) -> None:
    base = write_base(tmp_path)
    change_weights(base, change)
    sentence = refused(base)
    assert all(word in sentence for word in [*words, str(tmp_path)]), sentence


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 3}, ["9 of the model's 30 tensors are not in the files", "model.layers.2."]),
        ({"num_hidden_layers": 1}, ["no place for 9 tensors of the files", "model.layers.1."]),
        ({"vocab_size": 65}, ["[64, 32] in the files and [65, 32] in the model", "and 1 more"]),
        ({"intermediate_size": 40}, ["down_proj.weight is [32, 32] in the files and [32, 40]", "and 5 more"]),
    ],
)
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, values: dict[str, Any], words: list[str]) -> None:
    base = write_base(tmp_path)
    change_config(base, **values)
    sentence = refused(base)
    assert all(word in sentence for word in words), sentence


def test_one_missing_tensor_of_an_expert_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path, "mixtral")
    change_weights(
        base, lambda old: {name: tensor for name, tensor in old.items() if "layers.0.block_sparse_moe.experts.1.w1" not in name}
    )
    assert "such as the experts of a layer, are incomplete" in refused(base)


def test_what_transformers_itself_loads_goes_on_working(tmp_path: Path) -> None:
    tied = write_base(tmp_path / "tied", tie_word_embeddings=True)
    check_weights(tied)
    loaded = load_base(tied)
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()

    without_prefix = write_base(tmp_path / "without-prefix", tie_word_embeddings=True)
    change_weights(without_prefix, lambda old: {name.removeprefix("model."): tensor for name, tensor in old.items()})
    check_weights(without_prefix)
    assert torch.equal(load_base(without_prefix).model.norm.weight, loaded.model.norm.weight)
    assert torch.equal(load_base(without_prefix).lm_head.weight, loaded.lm_head.weight)

    old_buffers = write_base(tmp_path / "old-buffers")
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    change_weights(old_buffers, lambda old: old | buffers)
    check_weights(old_buffers)
    load_base(old_buffers)

    sharded = write_base(tmp_path / "sharded")
    into_shards(sharded)
    check_weights(sharded)
    assert len(stored_tensors(tmp_path / "sharded", "x")) == 21
    load_base(sharded)


def test_an_untied_head_that_is_missing_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path, tie_word_embeddings=True)
    change_config(base, tie_word_embeddings=False)
    assert "lm_head.weight" in refused(base)


def pointer(folder: Path, shards: list[str]) -> None:
    (folder / shards[1]).write_bytes(POINTER)


def missing(folder: Path, shards: list[str]) -> None:
    (folder / shards[1]).unlink()


def cut(folder: Path, shards: list[str]) -> None:
    content = (folder / shards[1]).read_bytes()
    (folder / shards[1]).write_bytes(content[: len(content) // 2])


def cut_in_header(folder: Path, shards: list[str]) -> None:
    (folder / shards[0]).write_bytes((folder / shards[0]).read_bytes()[:40])


def longer(folder: Path, shards: list[str]) -> None:
    with (folder / shards[0]).open("ab") as file:
        file.write(b"1234567")


def empty(folder: Path, shards: list[str]) -> None:
    (folder / shards[0]).write_bytes(b"")


def a_web_page(folder: Path, shards: list[str]) -> None:
    (folder / shards[0]).write_text("<!doctype html><title>401</title>" * 9)


def other_index(folder: Path, shards: list[str]) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = shards[1]
    (folder / INDEX).write_text(json.dumps(index))


def no_index(folder: Path, shards: list[str]) -> None:
    (folder / INDEX).unlink()


def index_out_of_its_folder(folder: Path, shards: list[str]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": f"../{folder.name}/{shards[0]}"}}))


def two_models(folder: Path, shards: list[str]) -> None:
    tensors = load_file(folder / shards[1])
    save_file(tensors | {"model.norm.weight": torch.ones(32)}, folder / shards[1])


def only_pickle(folder: Path, shards: list[str]) -> None:
    for name in (*shards, INDEX):
        (folder / name).unlink()
    torch.save({}, folder / "pytorch_model.bin")


def another_name(folder: Path, shards: list[str]) -> None:
    (folder / INDEX).unlink()
    (folder / shards[0]).rename(folder / "consolidated.safetensors")
    (folder / shards[1]).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (pointer, "model-00002-of-00002.safetensors .* is a Git LFS pointer.*git lfs pull"),
        (missing, "lacks 1 of its 2 weight files .model-00002-of-00002.safetensors.: download"),
        (cut, "model-00002-of-00002.safetensors .* is cut off: it has .* instead of"),
        (cut_in_header, "model-00001-of-00002.safetensors .* is cut off"),
        (longer, "7 bytes more than its header describes"),
        (empty, "model-00001-of-00002.safetensors .* is not a safetensors file, or is damaged"),
        (a_web_page, "model-00001-of-00002.safetensors .* is not a safetensors file, or is damaged"),
        (other_index, "names model.norm.weight in model-00002-of-00002.safetensors, which that file does not hold"),
        (no_index, f"but no {INDEX}: download that too"),
        (index_out_of_its_folder, "cannot be used as an index of weight files .it must name safetensors files beside it"),
        (two_models, "holds model.norm.weight both in model-00001-of-00002.safetensors and in"),
        (only_pickle, "only in pytorch_model.bin, a format that can run code.*save_pretrained"),
        (another_name, "has consolidated.safetensors but no model.safetensors: .*save_pretrained"),
    ],
)
def test_files_that_are_not_all_the_weights_are_refused(
    tmp_path: Path, damage: Callable[[Path, list[str]], None], words: str
) -> None:
    base = write_base(tmp_path)
    damage(tmp_path, into_shards(base))
    with pytest.raises(UserError, match=words):
        check_weights(base)
    with pytest.raises(UserError, match=words):
        load_base(base)


@pytest.mark.usefixtures("servers")
def test_a_base_on_the_hub_is_judged_by_its_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(tmp_path / "base", length=2**14, vocab=2**14)
    into_shards(base)
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_release_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        repository = hub.repositories["org/base"] = Repository(private=False)
        commit = repository.add("main", files, "base")
        assert hub_tensors("org/base", commit) == stored_tensors(tmp_path / "base", "base")
        pickled = repository.add("main", {"config.json": b"{}", "pytorch_model.bin": b"x"}, "pickled")
        with pytest.raises(UserError, match=r"on the hub has no model.safetensors"):
            hub_tensors("org/base", pickled)
        assert hub_tensors("org/none", commit) is None
    assert hub_tensors("org/base", "0" * 40) is None, "nobody answers any more, so loading has to say what is wrong"


def test_a_tokenizer_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"tokenizer.json of base model .* is a Git LFS pointer"):
        load_config(base)


def test_other_formats_of_the_weights_may_be_pointers(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(POINTER)
    (tmp_path / "model-Q4.gguf").write_bytes(POINTER)
    check_weights(base)
    load_config(base)


def test_a_gguf_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>")
    base = ModelParams(base=str(tmp_path), gguf_file="model.gguf", target_length=256)
    with pytest.raises(UserError, match=r"model.gguf of base model .* is not a GGUF file"):
        check_weights(base)
    (tmp_path / "model.gguf").write_bytes(POINTER)
    with pytest.raises(UserError, match="Git LFS pointer"):
        check_weights(base)


def test_the_folder_of_an_adapter_is_not_a_base(tmp_path: Path) -> None:
    """transformers would load the base that the adapter names, whatever weights are in the folder."""
    base = write_base(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/other", "peft_type": "LORA"}))
    with pytest.raises(UserError, match=r"has an adapter_config.json: merge that adapter into its base first"):
        load_config(base)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}, "bitsandbytes, 4 bits"),
    ],
)
def test_a_quantised_base_is_refused_by_name(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    base = write_base(tmp_path)
    change_config(base, quantization_config=settings)
    with pytest.raises(UserError, match=rf"is quantised .quantization_config in its config.json: {words}"):
        load_config(base)


def test_a_base_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    unknown = write_base(tmp_path / "unknown")
    own = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    change_config(unknown, model_type="own", auto_map=own)
    with pytest.raises(UserError, match=r"configuration of base model .* needs code that comes with it \(auto_map\)"):
        load_config(unknown)
    other = write_base(tmp_path / "other")
    change_config(other, auto_map={"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"})
    with pytest.raises(UserError, match=r"auto_map in its config.json: modeling_own.OwnForCausalLM.*transformers' llama may"):
        load_config(other)
    same = write_base(tmp_path / "same")
    change_config(same, auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    check_weights(same)
    load_base(same)


def test_transformers_own_report_is_the_second_line(tmp_path: Path) -> None:
    """Whatever the headers did not show: a model with a weight that did not come from the files is never used."""
    write_base(tmp_path)
    model, report = LlamaForCausalLM.from_pretrained(tmp_path, num_hidden_layers=3, output_loading_info=True)
    with pytest.raises(UserError, match=r"9 of the model's 30 tensors are not in the files"):
        refuse_partly_loaded(model, report, "x")


def test_a_header_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    (tmp_path / FILE).write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert "is not a safetensors file" in refused(base)
