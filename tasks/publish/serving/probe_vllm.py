"""Ask an installed vLLM for next-token log-probabilities. Imports nothing of Ropeway.

    python probe_vllm.py REQUEST.json RESPONSE.json

Request and response are those of probe_transformers.py. vLLM answers with its twenty best tokens of each position; a
candidate that is not among them is left out of the answer.
"""

import gc
import json
import sys

ASKED = 20  # the most that vLLM gives by default


def answer(directory: str, prompts: list) -> dict:
    from vllm import LLM, SamplingParams

    llm = LLM(
        directory, dtype="float32", enforce_eager=True, disable_log_stats=True, enable_prefix_caching=False, max_num_seqs=1
    )
    found = []
    for prompt in prompts:
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=ASKED)
        output = llm.generate([{"prompt_token_ids": prompt["token_ids"]}], sampling, use_tqdm=False)[0]
        candidates = prompt.get("candidates") or [None] * len(prompt["positions"])
        rows = []
        for position, ids in zip(prompt["positions"], candidates):  # noqa: B905
            # Entry i of prompt_logprobs is about token i, so about what follows position i - 1.
            row = output.prompt_logprobs[position + 1]
            rows.append({str(token): float(row[token].logprob) for token in (ids or row) if token in row})
        found.append(rows)
    length = llm.llm_engine.model_config.max_model_len
    del llm
    gc.collect()
    return {"context_length": length, "prompts": found}


def main(request_path: str, response_path: str) -> None:
    import vllm

    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    models = []
    for model in request["models"]:
        try:
            models.append(answer(model["directory"], model["prompts"]))
        except Exception as error:
            models.append({"error": f"{type(error).__name__}: {error}"})
    with open(response_path, "w", encoding="utf-8") as file:
        json.dump({"program": "vllm", "version": vllm.__version__, "models": models}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
