"""A base in a GGUF file is loaded, saved as safetensors and loaded again with the same weights; what is read of it is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_schemas.params import ModelParams
from tasks.model.base_model import load_base, load_config, load_tokenizer

WIDTH, HEADS, INNER, VOCABULARY = 32, 4, 48, 64


def write_gguf(file: Path, *, tied: bool = False) -> None:
    """A llama of one layer, in float32."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(ord("A") + i) for i in range(VOCABULARY - 1)] + ["AB"])
    writer.add_token_merges(["A B"])
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    shapes |= {f"blk.0.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (INNER, WIDTH), "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER)}
    if tied:
        del shapes["output"]
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_base_from_a_gguf_file_is_saved_and_loaded_again(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    model = load_base(ModelParams(base=str(tmp_path), gguf_file="tiny.gguf", target_length=256)).eval()
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_a_gguf_file_is_parsed_once_for_its_configuration_its_tokenizer_and_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    parsed = []

    class CountingReader(gguf.GGUFReader):  # type: ignore[misc]
        def __init__(self, *args: object) -> None:
            parsed.append(args)
            super().__init__(*args)

    base = tmp_path / "base"
    base.mkdir()
    write_gguf(base / "tiny.gguf", tied=True)
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "GGUFReader", CountingReader)
    model = ModelParams(base=str(base), gguf_file="tiny.gguf", target_length=256)

    def read() -> tuple[dict[str, object], list[int], str]:
        config = load_config(model).to_dict()
        config.pop("_name_or_path", None)
        tokenizer = load_tokenizer(model)
        return config, tokenizer("CABABD").input_ids, tokenizer.backend_tokenizer.to_str()

    first, weights = read(), load_base(model).state_dict()
    so_far = len(parsed)
    assert first[1] == [2, 63, 63, 3]
    assert read() == first
    again = load_base(model).state_dict()
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert len(parsed) == so_far > 0

    with (base / "tiny.gguf").open("ab") as file:  # another file is read anew
        file.write(b"\0")
    read()
    load_base(model)
    assert len(parsed) == 2 * so_far
