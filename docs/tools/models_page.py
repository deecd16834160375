"""Write docs/models.md from the recorded proofs of all architectures: `python docs/tools/models_page.py`.

The record is made by `python -m benchmarks.architectures --json benchmarks/results/architectures-cpu.json`.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"
RECORD = ROOT / "benchmarks" / "results" / "architectures-cpu.json"

HEAD = """# Models

<!-- Written by docs/tools/models_page.py from benchmarks/results/architectures-cpu.json. Change the text there. -->

Which bases can be extended, and how to find out for yours.

## Your own base

```console
$ ropeway plan my.yaml                                # nothing is downloaded but the config and the headers of the weights
```

`ropeway plan` proves it on a small model: the base's own `config.json`, after the RoPE plan, with small widths and one layer of each
kind (at least two layers). It runs on the CPU in seconds, without the base's weights. Every run repeats it before any work.

| What is checked | How |
| --- | --- |
| no token sees a later one | later tokens are changed |
| no document sees another in its row | the other documents of a packed row are changed |
| a packed document comes out as it does alone | the same document, packed and alone |
| groups over the whole row are the model's own attention | logits beside transformers' own code of the model |
| loss and gradients are the model's own | beside the model's own loss, one document at a time |
| merged, saved and loaded it is the same | an adapter is merged, and the model is published and loaded again |

A base that fails is refused with the difference that was found, or with the exception that its code raised. The proof says nothing
about quality: that is what the [evaluation](evaluation.md) measures.

Two things decide beside the proof:

- **RoPE.** A base needs rotary positions. Some scalings cannot be extended further; the plan says which and what to use instead. Keys
  of `rope_parameters` that Ropeway does not compute are carried over, and the plan names them. A key whose meaning would change is refused.
- **The window.** Most configs state it. Where a config can be read in two ways, the plan says which reading it took, and
  `model.window` states the other. Example: deepseek-coder has `max_position_embeddings` 16384 and a linear factor of 4, and 16384 is
  the window *after* scaling, so set `model.window: 16384`.

## All architectures

The same proof on the default configuration of every causal architecture of transformers {transformers}, extended {extension}x, by
`python -m benchmarks.architectures`: {counts}. A base of yours may set what these defaults do not, so `ropeway plan` has the last word.
"""


def models_page() -> str:
    """The whole page."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = list(record["architectures"].values())
    by_outcome = {name: [row for row in rows if row["outcome"] == name] for name in ("works", "refused", "not built")}
    counts = ", ".join(f"{len(found)} {_TOLD[name]}" for name, found in by_outcome.items())
    if untried := record["total"] - len(rows):
        counts += f", and {untried} are not tried yet"
    head = HEAD.format(transformers=record["versions"]["transformers"], extension=record["extension"], counts=counts)
    works = ", ".join(f"`{row['model_type']}`" for row in by_outcome["works"])
    sections = [head, f"### Works\n\n{works}.\n"]
    if conditions := [f"- `{row['model_type']}` {row['reason']}.\n" for row in by_outcome["works"] if row["reason"]]:
        sections.append("With a condition:\n\n" + "".join(conditions))
    for name, title in (("refused", "Refused, because"), ("not built", "Not built")):
        lines = [f"| `{row['model_type']}` | {_cell(row)} |" for row in by_outcome[name]]
        sections.append(f"### {title}\n\n{_BEFORE[name]}| model type | reason |\n| --- | --- |\n" + "\n".join(lines) + "\n")
    return "\n".join(sections)


_TOLD = {"works": "work", "refused": "are refused", "not built": "were not built"}
_BEFORE = {
    "refused": "",
    "not built": "No small model of the default configuration could be built, so nothing is said about them. `ropeway plan` refuses such "
    "a base too.\n\n",
}


def _cell(row: dict[str, Any]) -> str:
    """The reason, as one cell of a table."""
    reason: str = row["reason"].replace("|", "\\|").replace("<", "&lt;")
    return reason[:1].upper() + reason[1:]


if __name__ == "__main__":
    PAGE.write_text(models_page(), encoding="utf-8")
    print(f"wrote {PAGE}")
