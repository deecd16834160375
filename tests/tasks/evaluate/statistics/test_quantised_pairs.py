"""What the quantisation of a base costs, in the report: the published model over the same adapter on the quantised weights."""

import pyarrow as pa
import pytest

from data_schemas.report import EvaluationSettings
from data_schemas.samples import PERPLEXITY_SAMPLES, QUANTISED_ARM
from tasks.evaluate.labels import arm_label
from tasks.evaluate.report.quantised_note import quantised_note
from tasks.evaluate.statistics.perplexity_rows import comparisons, perplexity_cells

SETTINGS = EvaluationSettings(
    arms=("fine_tuned", QUANTISED_ARM), target_tokens=10, non_inferiority_margin=0.05, confidence=0.95, seed=0, base_window=64,
    target_length=128, base_precision="nf4",
)  # fmt: skip


def test_the_published_model_is_compared_with_the_one_that_was_trained() -> None:
    rows = [
        {
            "arm": arm,
            "length": length,
            "doc_id": str(i),
            "target_start": 0,
            "num_tokens": 10,
            "nll": nll + i,
            "logprobs": [0.0] * 10,
        }
        for arm, nll in (("fine_tuned", 10.0), (QUANTISED_ARM, 10.5))
        for length in (64, 128)
        for i in range(3)
    ]
    cells = perplexity_cells(pa.Table.from_pylist(rows, schema=PERPLEXITY_SAMPLES), SETTINGS.arms)
    found = {(row.numerator.length, row.denominator.arm): row.ratio for row in comparisons(cells, SETTINGS)}
    assert found == {
        (128, QUANTISED_ARM): pytest.approx(2.718281828**-0.05),
        (64, QUANTISED_ARM): pytest.approx(2.718281828**-0.05),
    }
    assert arm_label(QUANTISED_ARM) == "fine-tuned, quantised"
    assert "in nf4" in quantised_note(SETTINGS)
    assert "rounded" not in quantised_note(SETTINGS)
    assert "inputs of these layers" in quantised_note(SETTINGS.model_copy(update={"base_precision": "fp8"}))
    assert quantised_note(SETTINGS.model_copy(update={"arms": ("fine_tuned",)})) == ""
