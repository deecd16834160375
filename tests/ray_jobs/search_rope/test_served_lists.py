"""Which lists and which factor on cosine and sine a search may choose, by the programs that serve the model."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config

from data_schemas.consumers import CLAIMS, SERVABLE, RopeUse, why_not
from data_schemas.errors import UserError
from data_schemas.manifest import stage_digest
from data_schemas.storage import Storage
from ray_jobs.search_rope import search_key, search_stage
from tasks.model.base_model import load_base
from tasks.model.extended import extended_config, rope_plan_for
from tasks.rope_search.plans import (
    factors_file,
    load_result,
    space_of,
)
from tasks.rope_search.seeds import seed_genomes
from tasks.rope_search.served import misreading, publishes_two_lists
from tests.heard import texts_into
from tests.ray_jobs.search_rope.search_example import documents_of, search_params


def test_attention_is_searched_only_where_every_server_reads_it(folder: Path) -> None:
    params = search_params(folder)
    served = params.model_copy(update={"model": params.model.model_copy(update={"serve_with": ("vllm",)})})
    assert space_of(params).attention
    assert not space_of(served).attention
    asked = served.model_copy(update={"rope_search": served.rope_search.model_copy(update={"attention": "searched"})})
    with pytest.raises(UserError, match="vLLM computes longrope's attention_factor itself"):
        space_of(asked)


def test_short_prompts_get_their_own_list_only_where_every_server_switches(searched: tuple, folder: Path) -> None:
    params, search, _ = searched
    with pytest.raises(ValueError, match=r"which no row would train: set training\.short_window_share"):
        search_params(folder, short_factors="original")
    asked = search_params(folder, short_factors="original", short_window_share=0.25)
    served = {
        name: asked.model_copy(update={"model": asked.model.model_copy(update={"serve_with": (name,)})})
        for name in ("transformers-5", "transformers-4.57", "vllm")
    }
    assert publishes_two_lists(asked)
    assert [publishes_two_lists(one) for one in served.values()] == [True, False, False]
    for name, why in (
        ("vllm", "vLLM uses the long factors for every prompt, also for those of at most 128 tokens"),
        (
            "transformers-4.57",
            "transformers 4 takes max_position_embeddings as the original length and never uses the long factors",
        ),
    ):
        assert misreading(served[name], "longrope_two_lists") == {name: why}
        told: list[str] = []
        search_stage._Search(served[name], documents_of(Storage(params.storage)).path, texts_into(told), None)._announce()
        assert told[-1] == f"search-rope: both lists will be equal, because {why}"
    result = load_result(search)
    assert factors_file(result, two_lists=True)["long_factor"] == list(result.factors)
    space = space_of(asked)
    assert {space.candidate(genome).attention for genome in seed_genomes(space, 4)} == {1.0}, "both lists have the same factor"
    assert space_of(served["vllm"]).kept_attention > 1, "with equal lists it is LongRoPE's"
    for chosen in ("longrope", "searched"):
        with pytest.raises(ValueError, match="set attention to auto, or short_factors to equal"):
            search_params(folder, short_factors="original", short_window_share=0.25, attention=chosen)
    documents = documents_of(Storage(params.storage))
    digests = {stage_digest(**search_key.inputs_of(one, documents)) for one in (params, asked, served["vllm"])}
    assert len(digests) == 3


def test_short_prompts_of_a_release_with_original_short_factors_have_the_logits_of_the_base(
    searched: tuple, folder: Path, tmp_path: Path
) -> None:
    params = search_params(folder, short_factors="original", short_window_share=0.25)
    space = space_of(params)
    found = space.candidate(seed_genomes(space, 4)[0])
    settings = params.rope_search
    changes = {
        "factors": found.factors,
        "attention_factor": found.attention,
        "attention_searched": space.attention,
        "settings": settings,
    }
    written = factors_file(load_result(searched[1]).model_copy(update=changes), publishes_two_lists(params))
    (tmp_path / "found.json").write_text(json.dumps(written))
    model = params.model.model_copy(update={"rope_factors_file": str(tmp_path / "found.json")})
    released = load_base(model, config=extended_config(model))
    released.save_pretrained(tmp_path / "release")
    rope_plan_for(model).write_config(tmp_path / "release")
    base, release = (
        AutoModelForCausalLM.from_pretrained(at, dtype=torch.float64).eval() for at in (model.base, tmp_path / "release")
    )
    tokens = torch.from_numpy(np.random.default_rng(0).integers(2, 380, (1, 300)))
    with torch.inference_mode():
        assert torch.equal(release(tokens[:, :128]).logits, base(tokens[:, :128]).logits)
        assert not torch.allclose(release(tokens).logits, base(tokens).logits, atol=1e-3)
        assert torch.equal(release(tokens[:, :40]).logits, base(tokens[:, :40]).logits), "also after a long prompt"


def test_a_program_that_reads_longrope_reads_every_rival() -> None:
    model_types = {"llama"} | {name.rstrip("*") for claim in CLAIMS for name in (*claim.only_for, *claim.except_for)}
    for name, model_type in itertools.product(SERVABLE, model_types):
        reads = {
            rope_type: not why_not(
                name, RopeUse(model_type=model_type, rope_type=rope_type, features=frozenset({rope_type}), numbers=numbers)
            )
            for numbers in ({"original": 128, "target": 384, "served": 384},)
            for rope_type in ("longrope", "yarn", "default")
        }
        assert not reads["longrope"] or all(reads.values()), (name, model_type, "the search's key must hold the rivals")


def test_phi3_gets_two_lists_with_transformers_4_which_switches_for_it(folder: Path, tmp_path: Path) -> None:
    params = search_params(folder, short_factors="original", short_window_share=0.25)
    phi3 = tmp_path / "phi3"
    Phi3Config(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=128, original_max_position_embeddings=128, pad_token_id=None,
    ).save_pretrained(phi3)  # fmt: skip
    for served, expected in ((("transformers-4.57",), True), (("transformers-5", "transformers-4.57"), True), ((), True)):
        changes = {"base": str(phi3), "serve_with": served}
        asked = params.model_copy(update={"model": params.model.model_copy(update=changes)})
        assert publishes_two_lists(asked) is expected
        assert misreading(asked, "longrope_two_lists") == {}
