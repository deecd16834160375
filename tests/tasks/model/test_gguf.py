"""A base in a GGUF file is loaded, saved as safetensors and loaded again with the same weights; what is read of it is kept."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from data_schemas.params import ModelParams
from tasks.model import gguf_copy
from tasks.model.base_model import load_base, load_config, load_tokenizer
from tasks.model.gguf_copy import kept_part, kept_weights

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


class Kept:
    """Something with `save_pretrained`, of one file; `again` reads it as transformers would."""

    def __init__(self, text: str, fault: Exception | None = None) -> None:
        self.text, self.fault = text, fault

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self.text)
        if self.fault:
            raise self.fault


def again(folder: str) -> Kept:
    text = (Path(folder) / "tokenizer.json").read_text()
    if text == "bad":
        raise Exception("the tokenizers library raises this")
    return Kept(text)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("damage", ["", "bad", "shorter", None])
def test_a_damaged_copy_is_made_anew(cache: Path, damage: str | None) -> None:
    assert kept_part("f", "tokenizer", lambda: Kept("ABC"), again).text == "ABC"
    (file,) = cache.rglob("tokenizer.json")
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    assert kept_part("f", "tokenizer", lambda: Kept("ABC"), again).text == "ABC"
    assert kept_part("f", "tokenizer", lambda: pytest.fail("it was not repaired"), again).text == "ABC"


def test_a_copy_that_cannot_be_written_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    full = Kept("ABC", SafetensorError("No space left on device"))
    assert kept_part("f", "config", lambda: full, again) is full
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    assert kept_weights(tmp_path / "tiny.gguf", "f", lambda: full, again) is None
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_copies_stay_within_their_bound_and_what_killed_processes_left_goes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        kept_part(name, "config", lambda: Kept("x" * 1000), again)
        (listed,) = cache.glob(f"gguf/{name}-*/config/kept_files.json")
        os.utime(listed, (1, ord(name)))
    left, begun = listed.parent.parent / ".weights-left", listed.parent.parent / ".weights-begun"
    left.mkdir()
    begun.mkdir()
    os.utime(left, (1, 1))
    monkeypatch.setattr(gguf_copy, "MOST_CACHE_BYTES", 2500)
    kept_part("a", "config", lambda: pytest.fail("it is kept"), again)  # now b is the one used longest ago
    kept_part("d", "config", lambda: Kept("x" * 1000), again)
    assert sorted(folder.parent.name[0] for folder in cache.glob("gguf/*/config")) == ["a", "d"]
    assert not left.exists()
    assert begun.exists()


def test_weights_whose_copy_is_torn_are_read_from_the_file(cache: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_gguf(base / "tiny.gguf")
    model = ModelParams(base=str(base), gguf_file="tiny.gguf", target_length=256)
    weights = load_base(model).state_dict()
    (file,) = cache.rglob("model.safetensors")
    for torn in (b"", bytes(file.stat().st_size)):
        file.unlink()  # the old one is mapped into memory
        file.write_bytes(torn)
        again = load_base(model).state_dict()
        assert all(torch.equal(again[name], weights[name]) for name in weights)
