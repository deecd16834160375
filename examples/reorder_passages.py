"""Put retrieved passages into the order that `chunk_reorder.json` of a release asks for, within a token budget.

    python examples/reorder_passages.py

The config is made here; a release brings one that was measured on its own model. No torch is loaded.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from data_schemas.params import PipelineParams
from tasks.publish.reorder_config import make_config
from tasks.reorder import ChunkReorder

PASSAGES = [
    {"text": "Perplexity at 2048 is 9.2.", "score": 0.61},
    {"text": "The base works up to 512 tokens.", "score": 0.97},
    {"text": "The demo takes minutes.", "score": 0.40},
    {"text": "YaRN scales its frequencies by 4.", "score": 0.88},
    {"text": "Python's library is the corpus.", "score": 0.55},
]


def main() -> None:
    model = {"base": "demo", "target_length": 2048}
    params = PipelineParams(run_name="example", model=model, corpus={"sources": ["stdlib:"]})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chunk_reorder.json"
        path.write_text(make_config(params, []).model_dump_json(indent=1))
        reorder = ChunkReorder.load(path)  # or a release's folder
    print(f"{reorder.config.strategy}: ranks of 5 passages in prompt order {reorder.permutation(5)}")
    arrangement = reorder.arrange(PASSAGES, budget_tokens=28, count_tokens=lambda text: len(text) // 4)
    for passage in arrangement.passages:
        print(f"  {passage['score']:.2f}  {passage['text']}")
    print(f"dropped to keep the budget: {[left.passage['text'] for left in arrangement.dropped]}")


if __name__ == "__main__":
    main()
