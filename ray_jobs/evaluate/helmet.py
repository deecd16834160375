"""Hand a model over to HELMET (Yen et al. 2024, arXiv 2410.02694): config files that its `eval.py` reads, and data to try it with.

    python -m ray_jobs.evaluate.helmet MODEL OUT --lengths 8192,16384

    OUT/helmet-8192.yaml            HELMET's own data sets at this length: python eval.py --config OUT/helmet-8192.yaml
    OUT/helmet-8192-try.yaml        its key-value task on generated data, which needs no download
    OUT/data/json_kv_8192.jsonl

Names and limits follow princeton-nlp/HELMET 4526dfbdc512bd9ff721da336bff4e3e75ecfd27 (MIT). A release needs no option for RoPE: its
config.json holds the scaling, and HELMET's `rope_theta` would override it.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from data_schemas.errors import UserError

# HELMET's name of each RULER set, its folder, and the number of generated tokens.
RULER_SETS = (
    ("ruler_niah_s_1", "niah_single_1", 50),
    ("ruler_niah_s_2", "niah_single_2", 50),
    ("ruler_niah_s_3", "niah_single_3", 50),
    ("ruler_niah_mk_1", "niah_multikey_1", 50),
    ("ruler_niah_mk_2", "niah_multikey_2", 50),
    ("ruler_niah_mk_3", "niah_multikey_3", 100),
    ("ruler_niah_mq", "niah_multiquery", 100),
    ("ruler_niah_mv", "niah_multivalue", 50),
    ("ruler_cwe", "cwe", 100),
    ("ruler_fwe", "fwe", 50),
    ("ruler_vt", "vt", 50),
    ("ruler_qa_1", "qa_1", 50),
    ("ruler_qa_2", "qa_2", 50),
)
KEY_VALUE_TOKENS, NUM_SHOTS, NUM_SAMPLES = 100, 2, 100
_PROMPT_TOKENS = 300  # question and examples around the object


def helmet_config(model: str, length: int, sets: Sequence[tuple[str, str, int]], *, shots: int) -> dict[str, Any]:
    """HELMET's arguments for `sets`, each with its name, file and number of generated tokens, at `length` tokens."""
    names, files, generated = zip(*sets, strict=True)
    return {
        "model_name_or_path": model,
        "datasets": ",".join(names),
        "test_files": ",".join(files),
        "demo_files": "," * (len(sets) - 1),
        "input_max_length": ",".join([str(length)] * len(sets)),
        "generation_max_length": ",".join(map(str, generated)),
        "use_chat_template": False,
        "max_test_samples": NUM_SAMPLES,
        "shots": shots,
        "stop_newline": False,
    }


def key_value_rows(length: int, tokenizer: Any, num_samples: int, seed: int) -> list[dict[str, Any]]:
    """Rows of HELMET's `json_kv`: as many pairs of UUIDs as fit `length` tokens with question, examples and answer.

    Raises:
        UserError: fewer pairs fit than are needed.
    """
    rng = Random(seed)

    def one() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    def tokens(pairs: dict[str, str]) -> int:
        return len(tokenizer(json.dumps(pairs), add_special_tokens=False, verbose=False)["input_ids"])

    per_pair = tokens({one(): one() for _ in range(100)}) / 100
    num_pairs = int((length - _PROMPT_TOKENS - KEY_VALUE_TOKENS - NUM_SHOTS * per_pair) / (1.02 * per_pair))
    if num_pairs < NUM_SHOTS + 1:
        raise UserError(f"{length} tokens hold no key-value prompt of HELMET with this tokenizer: give longer --lengths.")
    rows = []
    for sample in range(num_samples):
        pairs = {one(): one() for _ in range(num_pairs)}
        asked, *shown = rng.sample(list(pairs), NUM_SHOTS + 1)
        rows.append(
            {
                "context": "JSON data:\n" + json.dumps(pairs),
                "question": asked,
                "answer": pairs[asked],
                "demos": [[key, pairs[key]] for key in shown],
                "num_kvs": num_pairs,
                "index": sample,
            }
        )
    return rows


def write_hand_over(
    model: Path, out: Path, lengths: Sequence[int], *, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> list[Path]:
    """Write the files of each length below `out` and return the configs. UserError if `model` is not a model's folder."""
    from transformers import AutoTokenizer

    model, out = model.expanduser().absolute(), out.expanduser().absolute()
    if not (model / "config.json").is_file():
        raise UserError(f"{model} has no config.json: give the folder of a model, such as `model` of a release.")
    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    (out / "data").mkdir(parents=True, exist_ok=True)
    written = []
    for length in lengths:
        data = out / "data" / f"json_kv_{length}.jsonl"
        rows = key_value_rows(length, tokenizer, num_samples, seed)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        ruler = [(name, f"data/ruler/{folder}/validation_{length}.jsonl", generated) for name, folder, generated in RULER_SETS]
        configs = {
            f"helmet-{length}.yaml": helmet_config(str(model), length, ruler, shots=0),
            f"helmet-{length}-try.yaml": helmet_config(
                str(model), length, [("json_kv", str(data), KEY_VALUE_TOKENS)], shots=NUM_SHOTS
            ),
        }
        for name, config in configs.items():
            (out / name).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
            written.append(out / name)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.evaluate.helmet", description="Write configs that HELMET runs with."
    )
    parser.add_argument("model", type=Path, help="folder of a model, such as `model` of a release")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--lengths", required=True, help="context lengths in tokens, separated by commas")
    given = parser.parse_args(arguments)
    try:
        lengths = [int(length) for length in given.lengths.split(",")]
    except ValueError:
        parser.error(f"--lengths {given.lengths} is not a list of numbers: write for example 8192,16384")
    try:
        written = write_hand_over(given.model, given.out, lengths)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
