"""Training on long packed rows beside what people would use instead: TRL's SFTTrainer, and a plain loop of transformers and peft.

`python -m benchmarks.peers_training [--lengths 2048 16384] [--rows packed single] [--json FILE]`. All train the same random Llama on
the same rows, in float32, with the same trained weights (LoRA, norms, tied embeddings), recomputed layers and fused AdamW. Ours has
its defaults: S2-Attn in groups of a quarter of a row, a quarter of the layers in full. `ropeway-full` is ours with all layers in full,
as the peers attend, by torch's SDPA: its loss in the first step must be theirs.
packed: documents of 1/2, 1/4, 1/8 and 1/8 of a row. single: one document a row, the case that favours the peers most.

First each system is checked on a packed row: whether it trains on the row's documents, and whether the last hidden states of the later
documents change when the first document is another one. `no-positions` is the plain loop without position ids: there they do.
The exit status is 1 if a system but that one fails a check, or if a loss that should be equal is not.

Each cell runs in a process of its own. Speed is by processor time, so that other work on the machine matters little; memory is the
peak that is resident in a step after the first, beyond what the imported libraries take. Tensors that are freed go back to the
system at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SYSTEMS = ("ropeway", "ropeway-full", "trl", "transformers")
LEAKING = "no-positions"  # shows that the check finds it when documents see each other
SAME_LOSS = 1e-4  # of losses in float32 that differ by rounding alone, relative
UNCHANGED = 1e-5  # of hidden states, relative
SHARES = {"packed": (2, 4, 8, 8), "single": (1,)}  # a document has row / share tokens
WIDTH, LAYERS, VOCABULARY = 256, 4, 8192
RATE, RANK, ALPHA = 2e-4, 16, 32
LORA = ["q_proj", "k_proj", "v_proj", "o_proj"]
IN_FULL = ["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"]


def documents(length: int, rows: str) -> list[np.ndarray]:
    """The documents of a row of `length` tokens, the longest first."""
    generator = np.random.default_rng(0)
    return [generator.integers(2, VOCABULARY, length // share).astype(np.int32) for share in SHARES[rows]]


def with_another_first(texts: list[np.ndarray]) -> list[np.ndarray]:
    return [(texts[0] - 2 + VOCABULARY // 2) % (VOCABULARY - 2) + 2, *texts[1:]]


def write_base(folder: Path, length: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=length // 4, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


class Meter:
    """Processor seconds of each step, and the peak resident memory after the first.

    With `sees`, also what the model read in its first step, ids [tokens], and its last hidden states [tokens, WIDTH].
    """

    def __init__(self, *, sees: bool = False) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.ids = self.hidden = np.empty(0)
        self._sees = sees
        self._before = resident_mb("VmRSS")
        self._started = 0.0

    def watch(self, model: Any) -> None:
        """Before the first step of `model`."""
        if self._sees:
            [embedding] = [module for name, module in model.named_modules() if name.endswith(".embed_tokens")]
            [norm] = [module for name, module in model.named_modules() if name.endswith("model.norm")]
            embedding.register_forward_pre_hook(self._read)
            norm.register_forward_hook(self._computed)

    def _read(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if not len(self.ids):
            self.ids = inputs[0][0].numpy()

    def _computed(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if not len(self.hidden):
            self.hidden = output[0].detach().numpy()

    def begin(self) -> None:
        if len(self.seconds) == 1:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        self._started = time.process_time()

    def end(self) -> None:
        self.seconds.append(time.process_time() - self._started)

    def result(self, length: int) -> dict[str, Any]:
        step = statistics.median(self.seconds[1:])
        peak = resident_mb("VmHWM") - self._before
        return {"tokens_per_s": length / step, "step_s": step, "steps_s": self.seconds, "peak_mb": peak, "loss": self.losses[0]}


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def run_ropeway(base: Path, texts: list[np.ndarray], steps: int, meter: Meter, *, in_full: bool = False) -> dict[str, Any]:
    import torch

    from data_schemas.params import PipelineParams
    from ray_jobs.finetune.full_layers import auto_count
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import set_up
    from ray_jobs.finetune.training.objective import set_full_layers
    from ray_jobs.finetune.training.steps import train_step

    class PackedRows:
        def __len__(self) -> int:
            return 1

        def row(self, index: int) -> dict[str, np.ndarray]:
            return {"input_ids": np.concatenate(texts), "seq_lengths": np.array([len(t) for t in texts], np.int32)}

        def chunk_ids(self, index: int) -> list[str]:
            return ["random:0"]

    length = sum(map(len, texts))
    training = {"steps": steps, "rows_per_step": 1, "warmup_steps": 0, "precision": "fp32", "schedule": "constant"}
    training |= {"full_weight_learning_rate": RATE, "learning_rate": RATE, "lora_rank": RANK, "lora_alpha": ALPHA}
    params = PipelineParams.model_validate(
        {
            "run_name": "peers",
            "corpus": {"sources": ["none"]},
            "model": {"base": str(base), "target_length": length, "rope_method": "yarn"},
            "training": training,
        }
    )
    worker = Worker(0, 1, torch.device("cpu"))
    objective, optimizer = set_up(params, worker)
    full = tuple(range(LAYERS if in_full else auto_count(LAYERS)))  # as many as the default; which they are changes no cost
    set_full_layers(objective, full)
    meter.watch(objective)
    for step in range(steps):
        meter.begin()
        metrics = train_step(objective, optimizer, params, PackedRows(), [0], step, worker)
        meter.end()
        meter.losses.append(metrics["loss"])
    return {"layers_in_full": list(full)} | ({} if in_full else {"group": length // 4})


def run_ropeway_full(base: Path, texts: list[np.ndarray], steps: int, meter: Meter) -> dict[str, Any]:
    return run_ropeway(base, texts, steps, meter, in_full=True)


def peft_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=LORA, modules_to_save=IN_FULL, ensure_weight_tying=True, task_type="CAUSAL_LM"
    )


def extended_base(base: Path, length: int) -> Any:
    """The base with YaRN of factor 4, as a user of transformers writes it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(base)
    theta = config.rope_parameters["rope_theta"]
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": length // 4, "rope_theta": theta}
    config.max_position_embeddings, config.rope_parameters = length, scaling
    return AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32, attn_implementation="sdpa")


def run_transformers(
    base: Path, texts: list[np.ndarray], steps: int, meter: Meter, *, with_positions: bool = True
) -> dict[str, Any]:
    import torch
    from peft import get_peft_model

    plain = extended_base(base, sum(map(len, texts)))
    plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = get_peft_model(plain, peft_config()).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    meter.watch(model)
    ids = torch.from_numpy(np.concatenate(texts).astype(np.int64))[None]
    positions = torch.from_numpy(np.concatenate([np.arange(len(t)) for t in texts]))[None]
    labels = torch.where(positions == 0, -100, ids)
    told = {"position_ids": positions} if with_positions else {}
    for _ in range(steps):
        meter.begin()
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels, use_cache=False, **told).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        meter.losses.append(loss.item())
        del loss
        meter.end()
    return {}


def run_without_positions(base: Path, texts: list[np.ndarray], steps: int, meter: Meter) -> dict[str, Any]:
    return run_transformers(base, texts, steps, meter, with_positions=False)


def run_trl(base: Path, texts: list[np.ndarray], steps: int, meter: Meter) -> dict[str, Any]:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Measured(TrainerCallback):
        def on_step_begin(self, *args: Any, **named: Any) -> None:
            meter.begin()

        def on_step_end(self, *args: Any, **named: Any) -> None:
            meter.end()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
            if "loss" in (logs or {}):
                meter.losses.append(float(logs["loss"]))

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w2"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w2")
    length = sum(map(len, texts))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_length=length, packing=True, per_device_train_batch_size=1, max_steps=steps, learning_rate=RATE,
            lr_scheduler_type="constant", gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
            optim="adamw_torch_fused", adam_beta2=0.95, max_grad_norm=1.0, bf16=False, use_cpu=True, report_to="none", logging_steps=1,
            save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, dataset_kwargs={"skip_prepare_dataset": False},
        )  # fmt: skip
        dataset = Dataset.from_dict({"input_ids": [text.tolist() for text in texts]})
        trainer = SFTTrainer(
            model=extended_base(base, length), args=config, train_dataset=dataset,
            processing_class=tokenizer, peft_config=peft_config(), callbacks=[Measured()],
        )  # fmt: skip
        meter.watch(trainer.model)
        packed = len(trainer.train_dataset)
        if packed != 1:  # with more rows, a packing that fills rows well puts the long documents together
            raise RuntimeError(f"TRL packed the documents into {packed} rows, not one")
        trainer.train()  # each step is an epoch of the one row
    return {}


RUN = {
    "ropeway": run_ropeway,
    "ropeway-full": run_ropeway_full,
    "trl": run_trl,
    "transformers": run_transformers,
    LEAKING: run_without_positions,
}


def in_a_process(system: str, length: int, rows: str, steps: int) -> dict[str, Any]:
    """One cell, or the check where there are no steps, in a process of its own; {"failed": why} if it ends badly."""
    command = [sys.executable, "-m", "benchmarks.peers_training", "--cell", system, str(length), rows, str(steps)]
    freeing = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=os.environ | freeing, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_cell(system: str, length: int, rows: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder), length)
        texts = documents(length, rows)
        if not steps:
            return check(system, Path(folder), texts)
        meter = Meter()
        told = RUN[system](Path(folder), texts, steps, meter)
        return meter.result(length) | told


def check(system: str, base: Path, texts: list[np.ndarray]) -> dict[str, Any]:
    """How two first steps differ whose rows differ in the first document alone; both are those of the measured code.

    first_changes, later_change  of the last hidden states in the first and in all later documents: norm of the difference over the norm
    """
    plain, other = Meter(sees=True), Meter(sees=True)
    RUN[system](base, texts, 1, plain)
    RUN[system](base, with_another_first(texts), 1, other)
    change = np.linalg.norm(plain.hidden - other.hidden, axis=-1)
    size, first = np.linalg.norm(plain.hidden, axis=-1), len(texts[0])
    later = float((change[first:] / size[first:]).max())
    return {
        "length": sum(map(len, texts)),
        "same_rows": np.array_equal(sorted_documents(plain.ids, texts), sorted_documents(np.concatenate(texts), texts)),
        "first_changes": float((change[:first] / size[:first]).mean()),
        "later_change": later,
        "documents_see_each_other": later > UNCHANGED,
        "loss": plain.losses[0],
    }


def sorted_documents(ids: np.ndarray, texts: list[np.ndarray]) -> np.ndarray:
    """`ids` cut where the documents `texts` end, those of equal length in the order of their tokens, as one row."""
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return np.concatenate(sorted(np.split(ids, ends), key=lambda d: (-len(d), d.tolist())))


def print_table(cells: list[dict[str, Any]]) -> None:
    """The ratio is ours over the peer's tokens a second; the memory's is the peer's over ours."""
    cells = sorted(cells, key=lambda c: (list(SHARES).index(c["rows"]), c["length"], SYSTEMS.index(c["system"])))
    print(f"{'rows':<8} {'length':>7} {'system':<13} {'tokens/s':>9} {'peak MB':>8} {'loss':>8} {'memory':>8} {'ratio':>7}")
    for cell in cells:
        ours = next(
            (c for c in cells if c["system"] == "ropeway" and (c["rows"], c["length"]) == (cell["rows"], cell["length"])), {}
        )
        head = f"{cell['rows']:<8} {cell['length']:>7} {cell['system']:<13}"
        if "failed" in cell:
            print(f"{head} {cell['failed']}")
            continue
        memory = f"{cell['peak_mb'] / ours['peak_mb']:.1f}x" if "peak_mb" in ours else "-"
        ratio = f"{ours['tokens_per_s'] / cell['tokens_per_s']:.1f}x" if "tokens_per_s" in ours else "-"
        print(f"{head} {cell['tokens_per_s']:>9,.0f} {cell['peak_mb']:>8,.0f} {cell['loss']:>8.4f} {memory:>8} {ratio:>7}")


def print_checks(checks: dict[str, Any]) -> None:
    print(f"{'system':<13} {'same rows':>9} {'documents see each other':>25} {'later documents change by':>26} {'loss':>9}")
    for system, found in checks.items():
        if "failed" in found:
            print(f"{system:<13} {found['failed']}")
            continue
        same, seen = ("yes" if found[name] else "no" for name in ("same_rows", "documents_see_each_other"))
        print(f"{system:<13} {same:>9} {seen:>25} {found['later_change']:>26.1e} {found['loss']:>9.5f}")


def faults(checks: dict[str, Any], cells: list[dict[str, Any]]) -> list[str]:
    """Why the figures do not compare like with like; empty if they do."""
    told = [f"{system}: {found['failed']}" for system, found in checks.items() if "failed" in found]
    for system, found in checks.items():
        if "failed" not in found and not found["same_rows"]:
            told.append(f"{system} trains on other rows")
        if "failed" not in found and found["documents_see_each_other"] != (system == LEAKING):
            told.append(
                f"{system}: documents see each other" if system != LEAKING else "the check finds no leak where there is one"
            )
    in_full = [c for c in cells if "failed" not in c and c["system"] != "ropeway"]
    for cell in in_full:
        other = next(c for c in in_full if (c["rows"], c["length"]) == (cell["rows"], cell["length"]))
        if abs(cell["loss"] / other["loss"] - 1) > SAME_LOSS:
            told.append(
                f"{cell['rows']} {cell['length']}: loss of {cell['system']} {cell['loss']}, of {other['system']} {other['loss']}"
            )
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--rows", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=3, help="of which the first warms up")
    parser.add_argument(
        "--json", type=Path, help="write the figures to this file after every cell; cells that it holds are not run again"
    )
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        system, length, rows, steps = args.cell
        print(json.dumps(run_cell(system, int(length), rows, int(steps))))
        return 0
    from importlib.metadata import version

    names = ("torch", "transformers", "peft", "trl")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    device = f"{platform.processor() or platform.machine()} CPU"
    record: dict[str, Any] = {"device": device, "threads": threads, "versions": {name: version(name) for name in names}}
    record["model"] = {
        "width": WIDTH,
        "layers": LAYERS,
        "vocabulary": VOCABULARY,
        "lora_rank": RANK,
        "trained_in_full": IN_FULL,
    }
    kept = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    cells: list[dict[str, Any]] = [cell for cell in kept.get("cells", []) if "failed" not in cell]
    done = {(cell["rows"], cell["length"], cell["system"]) for cell in cells}
    print(f"{device}, {threads} threads, {record['versions']}", flush=True)
    checks: dict[str, Any] = kept.get("checks", {})
    for system in (*args.systems, LEAKING):
        if "failed" in checks.get(system, {"failed": ""}):
            checks[system] = in_a_process(system, min(args.lengths), "packed", 0)
    record["checks"] = checks
    print_checks(checks)
    for rows in args.rows:
        for length in args.lengths:
            for system in args.systems:
                if (rows, length, system) in done:
                    continue
                cell = {"rows": rows, "length": length, "system": system}
                cells.append(cell | in_a_process(system, length, rows, args.steps))
                if args.json:
                    args.json.write_text(json.dumps(record | {"cells": cells}, indent=1) + "\n")
    print_table(cells)
    told = faults(checks, cells)
    print("\n".join(told))
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
