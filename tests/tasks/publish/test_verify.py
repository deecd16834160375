"""Verification: any changed, missing or extra byte is found, also by one who rewrote the checksums."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from tasks.publish.checksums import write_checksums
from tasks.publish.verify import check_files, verify_release, verify_staged
from tests.tasks.release_example import finished_run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"), tokenizer).publish().path


@pytest.fixture
def release(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "release"))


def failed(checks: list) -> dict[str, str]:
    return {check.name: check.detail for check in checks if not check.ok}


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_copy_of_a_release_verifies(release: Path) -> None:
    assert failed(verify_release(release)) == {}


def test_a_flipped_bit_anywhere_in_any_file_is_found_and_named(release: Path) -> None:
    files = sorted(p for p in release.rglob("*") if p.is_file())
    assert len(files) > 15
    for file in files:
        content = file.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            problems = failed(check_files(release))
            assert problems, (file.name, place)
            # A bit in a hash that the manifest records shows as the file it belongs to, in the check of the manifest.
            is_named = any(file.name in detail for detail in problems.values()) or file.stem in problems
            assert is_named, (file.name, place, problems)
        file.write_bytes(content)
    assert failed(check_files(release)) == {}


def test_a_missing_file_is_found_and_named(release: Path) -> None:
    for file in sorted(p for p in release.rglob("*") if p.is_file()):
        content = file.read_bytes()
        file.unlink()
        problems = failed(check_files(release))
        assert any(file.name in detail for detail in problems.values()), (file.name, problems)
        file.write_bytes(content)


def test_an_extra_file_is_found_and_named(release: Path) -> None:
    (release / "evaluation" / "surprise.txt").write_text("x")
    problems = failed(check_files(release))
    assert "evaluation/surprise.txt is extra" in problems["checksums"]
    assert "evaluation/surprise.txt is extra" in problems["manifest"]


def test_a_changed_manifest_value_is_found(release: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text())
    for changes in (
        {"summary": {"num_files": 3}},
        {"code_version": manifest["code_version"] + 1},
        {"stage": "other"},
        {"schema_version": 2},
        {"parents": {}},
        {"params": manifest["params"] | {"target_length": 64}},
        {"digest": "0" * 32},
        {"files": []},
    ):
        (release / "manifest.json").write_text(json.dumps(manifest | changes, indent=1))
        assert "manifest" in failed(check_files(release)), changes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"x"),
        ("evaluation/rows.dat", b"\x80\x04\x95abc"),
        ("training_args.pt", b""),
    ],
)
def test_a_pickle_is_found(release: Path, name: str, content: bytes) -> None:
    (release / name).write_bytes(content)
    assert name in failed(check_files(release))["no pickle"]


def test_a_torch_archive_under_an_innocent_name_is_found(release: Path) -> None:
    torch.save({"a": torch.ones(2)}, release / "notes.txt")
    assert "notes.txt" in failed(check_files(release))["no pickle"]


def test_an_adapter_config_beside_the_weights_is_found(release: Path) -> None:
    shutil.copyfile(release / "adapter" / "adapter_config.json", release / "adapter_config.json")
    assert "adapter apart" in failed(check_files(release))


# From here on the checksums are written anew after the change, so that only the contents can tell.


def contents_failing(release: Path) -> dict[str, str]:
    write_checksums(release)
    return failed(verify_staged(release))


def test_a_changed_weight_shows_in_the_logits(release: Path) -> None:
    weights = load_file(release / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    weights[name] = weights[name] * 1.05
    save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
    assert set(contents_failing(release)) == {"logits", "next tokens"}


def test_a_missing_weight_does_not_load(release: Path) -> None:
    weights = load_file(release / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
    problems = contents_failing(release)
    assert "model.norm.weight" in problems["reload"]
    assert problems["logits"].startswith("absent")


def test_a_weight_that_is_not_finite_is_found(release: Path) -> None:
    weights = load_file(release / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, release / "model.safetensors", metadata={"format": "pt"})
    problems = contents_failing(release)
    assert "model.norm.weight is not finite" in problems["weights"]
    assert "logits" in problems


@pytest.mark.parametrize(
    ("changes", "found_by"),
    [
        # both transformers 5 and vLLM let `rope_scaling` go before `rope_parameters`, other programs may not
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, "RoPE spelled alike"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "RoPE in the reloaded model"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "RoPE as vllm reads it"),
        ({"rope_theta": 500.0}, "RoPE as transformers-4.57 reads it"),
        ({"rope_scaling": None}, "RoPE as transformers-4.57 reads it"),
        ({"max_position_embeddings": 64}, "RoPE as transformers-4.57 reads it"),
    ],
)
def test_rope_that_some_consumer_reads_otherwise_is_found(release: Path, changes: dict, found_by: str) -> None:
    edit_json(release / "config.json", **changes)
    assert found_by in contents_failing(release)


def test_a_wrong_golden_permutation_is_found(release: Path) -> None:
    content = json.loads((release / "chunk_reorder.json").read_text())
    edit_json(release / "chunk_reorder.json", golden=content["golden"] | {"3": [3, 2, 1]})
    assert set(contents_failing(release)) == {"reorder config"}


def test_a_card_that_states_another_figure_than_the_report_is_found(release: Path) -> None:
    report = json.loads((release / "evaluation" / "report.json").read_text())
    report["perplexity"][-1]["perplexity"] += 1
    (release / "evaluation" / "report.json").write_text(json.dumps(report))
    assert set(contents_failing(release)) == {"model card"}


def test_a_tokenizer_of_another_length_is_found(release: Path) -> None:
    edit_json(release / "tokenizer_config.json", model_max_length=64)
    in_transformers = {f"RoPE as transformers-{version} reads it" for version in ("4.57", "5")}
    assert set(contents_failing(release)) == {"tokenizer", *in_transformers}


def test_a_recording_that_was_made_anew_for_another_length_is_found(release: Path) -> None:
    edit_json(release / "verification" / "next_tokens.json", context_length=128)
    assert set(contents_failing(release)) == {"next tokens"}


def test_a_recording_emptied_of_what_it_recorded_is_found(release: Path) -> None:
    recorded = json.loads((release / "verification" / "next_tokens.json").read_text())["prompts"]
    for prompts in (
        [],
        [prompt | {"candidates": []} for prompt in recorded],
        [prompt | {"logprobs": None} for prompt in recorded],
    ):
        edit_json(release / "verification" / "next_tokens.json", prompts=prompts)
        assert "next tokens" in contents_failing(release)


def test_an_unknown_consumer_is_one_sentence_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'tgi' is not a consumer .* choose among transformers-5, transformers-4\.57, vllm"):
        verify_release(tmp_path / "nowhere", ["tgi"])


def test_a_foreign_model_folder_is_reported_as_lacking_not_crashed_on(release: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(release / name, foreign / name)
    checks = {check.name: check for check in verify_release(foreign)}
    assert checks["weights"].ok
    assert checks["reload"].ok
    assert checks["RoPE as vllm reads it"].ok
    assert "because there is no plan" in checks["RoPE as vllm reads it"].detail
    assert checks["tokenizer"].ok
    assert checks["RoPE in the reloaded model"].ok
    assert "as in transformers 5, because there is no plan" in checks["RoPE in the reloaded model"].detail
    for name in (
        "checksums",
        "manifest",
        "logits",
        "next tokens",
        "reorder config",
        "model card",
    ):
        assert not checks[name].ok
        assert checks[name].detail.startswith("absent"), checks[name]


def test_an_empty_folder_fails_every_check_that_needs_a_file(tmp_path: Path) -> None:
    passed = {check.name for check in verify_release(tmp_path) if check.ok}
    assert passed == {"no pickle", "no code", "adapter apart", "signature"}


def test_no_folder_is_one_sentence_and_a_broken_pointer_one_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        verify_release(tmp_path / "nowhere")
    (tmp_path / "current").write_text("0123456789abcdef")
    assert [check.name for check in verify_release(tmp_path)] == ["current"]


@pytest.mark.parametrize("method", ["linear", "dynamic", "ntk", "llama3"])
@pytest.mark.slow
def test_a_release_of_any_method_verifies(method: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    release = finished_run(tmp_path, tokenizer, method).publish().path
    checks = {check.name: check for check in verify_release(release)}
    assert failed(list(checks.values())) == {}
    not_claimed = checks["RoPE as vllm reads it"].detail.startswith("not claimed")
    assert not_claimed is (method == "dynamic")
