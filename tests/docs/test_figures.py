"""Tables in the docs say what the recorded files say."""

import json
import math
import re
import shlex
from typing import Any

import pytest

from flows.config import load_config
from tests.docs.page_names import ROOT

RESULTS = ROOT / "benchmarks/results"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def recorded(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return result


def test_the_readme_has_the_recorded_perplexities_of_the_demo() -> None:
    report = (RESULTS / "demo/report.md").read_text().partition("### Perplexity by context length")[2].partition("###")[0]
    for arm, shown in (("base", "base (window 512)"), ("scaling only", "scaling only (YaRN 4x)"), ("fine-tuned", "fine-tuned")):
        [figures] = re.findall(rf"^\| {arm} \|((?: [\d.]+ \[[\d., ]+\] \|){{4}})$", report, re.M)
        assert f"| {shown} |{figures}\n" in page("README.md")


def test_the_demos_results_are_the_recorded_ones() -> None:
    report, shown = (RESULTS / "demo/report.md").read_text(), page("docs/evaluation.md")
    ratios = re.findall(
        r"^\| (\S+@\d+|scaling only@\d+) \| (\S+@\d+|scaling only@\d+) \| ([\d.]+ \[[^\]]+\]) \|$", report, re.M
    )
    rows = {(model.replace("@", " at "), other.replace("@", " at ")): ratio for model, other, ratio in ratios}
    quoted = re.findall(r"^\| ([a-z -]+ at \d+) \| ([a-z -]+ at \d+) \| ([^|]+) \|$", shown, re.M)
    assert len(quoted) == 4
    assert all(rows[model, other] == ratio for model, other, ratio in quoted)
    for arm in ("base", "scaling only", "fine-tuned"):
        [recalled] = re.findall(rf"^\| passkey, {arm} \| (\d+%.*) \|$", report, re.M)
        percent = [f"{cell.split('%')[0]} %" for cell in recalled.split(" | ")]
        assert f"| {arm} | {' | '.join(percent)} |" in shown


def test_the_results_of_demo_long_are_the_recorded_ones() -> None:
    report, shown = (RESULTS / "demo-long/report.md").read_text(), page("docs/training.md")
    for model, other, label in (
        ("fine-tuned@2048", "scaling only@2048", "perplexity, over scaling only | 1"),
        ("fine-tuned@512", "base@512", "perplexity at 512, over the base | 1.080"),
    ):
        [ratio] = re.findall(rf"^\| {model} \| {other} \| ([\d.]+ \[[^\]]+\]) \|$", report, re.M)
        assert f"| {label} | {ratio} |" in shown
    for task in ("niah_single", "niah_multikey", "short_key_value", "facts_in_text"):
        at_2048 = [
            re.findall(rf"^\| {task}, {arm} \| .*\| (\d+)% [^|]*\|$", report, re.M)[0] for arm in ("scaling only", "fine-tuned")
        ]
        assert f"| `{task}` | {at_2048[0]} % | {at_2048[1]} % |" in shown
    cells = recorded("demo-long/report.json")["tasks"]
    by_depth = [
        " / ".join(
            f"{cell['accuracy']:.0%}"[:-1]
            for cell in cells
            if (cell["arm"], cell["task"], cell["length"]) == (arm, "passkey", 2048)
        )
        for arm in ("scaling_only", "fine_tuned")
    ]
    assert f"| passkeys by depth 0 / 25 / 50 / 75 / 100 % | {by_depth[0]} % | {by_depth[1]} % |" in shown


def test_the_table_of_looked_up_keys_is_the_recorded_one() -> None:
    found, shown = recorded("lookup-forms-cpu.json")["trained_on"].values(), page("docs/retrieval-mix.md")
    for length in (512, 2048):
        task = f"short_key_value at {length}"
        [before] = {f"{one['before'][task]:.0%}"[:-1] for one in found}
        after = " % | ".join(f"{one['after'][task]:.0%}"[:-1] for one in found)
        assert f"| `short_key_value` at {length} tokens (80 prompts) | {before} % | {after} % |" in shown


def test_the_results_at_eight_times_the_window_are_the_recorded_ones() -> None:
    found, shown = recorded("demo-long-8x-cpu.json"), page("docs/training.md")
    for task, lengths in found["percent_right_by_depth"].items():
        cells = (" / ".join(map(str, lengths["4096"][arm])) for arm in ("scaling_only", "fine_tuned"))
        assert "| `{}` | {} % | {} % |".format(task, *cells) in shown
    ratios = found["perplexity"]
    for pair in ("fine-tuned@4096 over scaling only@4096", "fine-tuned@4096 over base@512", "fine-tuned@512 over base@512"):
        assert f"{ratios[pair]} of " in shown


def test_demo_long_beside_other_texts_is_the_recorded_one() -> None:
    cells, ratios = recorded("demo-long/report.json")["tasks"], (RESULTS / "demo-long/report.md").read_text()
    others, shown = [recorded(f"demo-long-{name}-cpu.json") for name in ("stages", "packages")], page("docs/training.md")
    for task in ("passkey", "niah_single", "niah_multikey", "short_key_value"):
        own = [
            f"{cell['accuracy']:.0%}"[:-1]
            for cell in cells
            if (cell["arm"], cell["task"], cell["length"]) == ("fine_tuned", task, 2048)
        ]
        theirs = [other["percent_right_by_depth"][task]["2048"]["fine_tuned"] for other in others]
        assert "| `{}` | {} % | {} % | {} % |".format(task, *(" / ".join(map(str, row)) for row in (own, *theirs))) in shown
    for label, model, other in (
        ("perplexity, over scaling only", "fine-tuned@2048", "scaling only@2048"),
        ("perplexity at 512, over the base", "fine-tuned@512", "base@512"),
    ):
        [ratio] = re.findall(rf"^\| {model} \| {other} \| ([\d.]+ \[[^\]]+\]) \|$", ratios, re.M)
        theirs = " | ".join(run["perplexity"][f"{model} over {other}"] for run in others)
        assert f"| {label} | {ratio} | {theirs} |" in shown
    losses = [loss["250"] for loss in recorded("demo-long-text-cpu.json")["held_out_loss"].values()]
    assert "held-out loss of {:.3f} on the standard library and of {:.3f} with".format(*losses) in shown


def test_demo_long_with_repeated_passages_is_the_recorded_one() -> None:
    without, report = recorded("demo-long/report.json")["tasks"], (RESULTS / "demo-long/report.md").read_text()
    found, shown = recorded("demo-long-openings-cpu.json"), page("docs/retrieval-mix.md")
    for label, task in (
        ("passkeys by depth 0 / 25 / 50 / 75 / 100 %", "passkey"),
        ("pairs of `short_key_value`", "short_key_value"),
    ):
        own = [
            f"{cell['accuracy']:.0%}"[:-1]
            for cell in without
            if (cell["arm"], cell["task"], cell["length"]) == ("fine_tuned", task, 2048)
        ]
        theirs = map(str, found["percent_right_by_depth"][task]["2048"]["fine_tuned"])
        assert f"| {label} | {' / '.join(own)} % | {' / '.join(theirs)} % |" in shown
    for label, model, other in (
        ("perplexity, over scaling only", "fine-tuned@2048", "scaling only@2048"),
        ("perplexity at 512, over the base", "fine-tuned@512", "base@512"),
    ):
        [ratio] = re.findall(rf"^\| {model} \| {other} \| ([\d.]+ \[[^\]]+\]) \|$", report, re.M)
        assert f"| {label} | {ratio} | {found['perplexity'][f'{model} over {other}']} |" in shown
    ratios = [ratio.split()[0] for ratio in found["fine_tuned_over_scaling_only_by_length"].values()]
    assert "{} with\n  256 tokens, {} with 512, {} with 1024 and {} with 2048".format(*ratios) in shown
    trials = [
        " / ".join(map(str, right)) for right in found["passkeys_during_the_second_stage"]["percent_right_by_depth"].values()
    ]
    assert f"That trial had {trials[1]} % after 500 steps" in shown
    assert f"it was {trials[2]} % after 250" in shown


def test_the_stage_with_facts_in_ordinary_words_is_the_recorded_one() -> None:
    found, shown = recorded("demo-long-facts-cpu.json"), page("docs/retrieval-mix.md")
    before = found["before_the_last_stage"]
    for task in ("passkey", "short_key_value", "niah_single", "niah_multikey"):
        rows = (" / ".join(map(str, run["percent_right_by_depth"][task]["2048"]["fine_tuned"])) for run in (before, found))
        assert "| `{}` | {} % | {} % |".format(task, *rows) in shown
    for label, pair in (
        ("perplexity, over scaling only", "fine-tuned@2048 over scaling only@2048"),
        ("perplexity at 512, over the base", "fine-tuned@512 over base@512"),
    ):
        assert f"| {label} | {before['perplexity'][pair]} | {found['perplexity'][pair]} |" in shown


def test_the_command_to_eight_times_the_window_goes_on_from_the_preset() -> None:
    words = shlex.split(recorded("demo-long-8x-cpu.json")["command"])
    said = page("docs/training.md").partition("$ ropeway run demo-long --set")[2].partition("```")[0].replace("\\\n", " ")
    assert shlex.split(said) == words[4:]
    stages = load_config("demo-long", [word for word in words[3:] if word != "--set"]).by_stage()
    preset = load_config("demo-long").by_stage()
    assert [(stage.model, stage.training, stage.retrieval) for stage in stages[:2]] == [
        (stage.model, stage.training, stage.retrieval) for stage in preset
    ]
    assert stages[2].model.target_length == 4096


@pytest.mark.parametrize("name", ["facts", "openings", "stages", "packages"])
def test_the_configs_of_recorded_runs_are_read(name: str) -> None:
    params = load_config(str(RESULTS / f"demo-long-{name}.yaml"))
    steps = {"facts": [250, 250, 500, 200], "openings": [250, 700], "stages": [250, 700], "packages": [1200]}
    assert [stage.training.steps for stage in params.by_stage()] == steps[name]


def test_the_table_of_rope_factors_is_the_recorded_one() -> None:
    shown = page("docs/rope.md")
    for times, result in recorded("rope-search.json")["extensions"].items():
        for form in result["forms"]:
            figures = f"{math.exp(form['answers']):.2f} | {math.exp(form['text']):.2f} | {form['score']:.3f} |"
            [difference] = re.findall(
                rf"^\| {times} \| [^|]+ \| {re.escape(figures)} ([^|]*)\| {form['num_samples']} \|$", shown, re.M
            )
            if form["difference"] is not None:
                interval = f"{form['difference']:+.3f} [{form['low']:+.3f}, {form['high']:+.3f}]"
                assert difference.strip() == interval.replace("-", "−")


def test_rows_over_two_workers_are_the_recorded_ones() -> None:
    runs = [recorded(f"sequence-parallel-{name}.json")["rows"] for name in ("cpu", "131072-cpu")]
    rows = {(row["tokens"], row["workers"], row["method"]): row for run in runs for row in run}
    for tokens in (16_384, 32_768, 65_536, 131_072):
        halos, gather, ring = (rows[tokens, 2, method] for method in ("ropeway", "gather", "ring"))
        sent = f"{halos['bytes_a_layer'] / 1e6:.2f} / {ring['bytes_a_layer'] / 1e6:.2f}"
        memory = f"{halos['memory_bytes'] / 1e6:,.0f} / {ring['memory_bytes'] / 1e6:,.0f}"
        speed = " / ".join(f"{row['tokens_per_s']:,.0f}" for row in (halos, gather, ring))
        assert f"| {tokens:,} | 2 | {sent} | {memory} | {speed} |" in page("docs/attention.md")


def test_the_memory_of_cut_rows_is_the_recorded_one_and_was_foreseen() -> None:
    for row in recorded("cut-rows-memory-cpu.json")["rows"]:
        foreseen, measured = (f"{row[name] / 1e6:.0f} MB" for name in ("foreseen_bytes", "measured_bytes"))
        assert f"| {row['tokens']:,} | {foreseen} | {measured} |" in page("docs/attention.md")
        assert abs(row["ratio"] - 1) < 0.15


def test_recipes_in_equal_time_are_the_recorded_ones() -> None:
    shown = page("docs/training.md")
    for arm in recorded("recipes-2048.json")["arms"]:
        ratio, low, high = arm["perplexity_over_scaling_only"]
        recall = " | ".join(f"{100 * arm['tasks'][f'{task}@2048']['score']:.0f} %" for task in ("passkey", "niah_single"))
        short = arm["perplexity_over_base_at_its_window"][0]
        gains = " / ".join(f"{nats:.0f}" for nats in arm["tasks"]["passkey@2048"]["gain_by_depth"])
        trained = "- | 1" if arm["arm"] == "scaling_only" else f"{arm['steps']} | {ratio:.3f} [{low:.3f}, {high:.3f}]"
        assert f"| {trained} | {short:.3f} | {recall} | {gains} |" in shown


def test_training_in_stages_is_the_recorded_one() -> None:
    shown, arms = page("docs/training.md"), {arm["arm"]: arm for arm in recorded("progressive-cpu.json")["arms"]}
    untrained = arms["scaling_only"]["tasks"]["passkey@8192"]["score"]
    assert f"passkeys at 8192 (scaling only {untrained:.0%})".replace("%", " %") in shown
    for name, label in (("one-stage", "one stage of 8192"), ("stages", "2048, then 8192")):
        arm = arms[name]
        ratio, low, high = arm["perplexity_over_scaling_only"]
        other = "1" if name == "one-stage" else "{:.3f} [{:.3f}, {:.3f}]".format(*arm["perplexity_over_one_stage"])
        recall, seconds = f"{100 * arm['tasks']['passkey@8192']['score']:.0f} %", f"{arm['processor_seconds'][0]:.0f} s"
        assert f"| {label} | {ratio:.3f} [{low:.3f}, {high:.3f}] | {other} | {recall} | {seconds} |" in shown


def test_the_row_of_a_million_tokens_is_the_recorded_one() -> None:
    run = recorded("million-tokens-cpu.json")
    foreseen, measured = (f"{size / 1e6:,.0f} MB" for size in (run["foreseen"]["bytes"], run["measured_bytes"]))
    assert f"| {run['tokens']:,} | {foreseen} | {measured} |" in page("docs/attention.md")
    assert abs(run["ratio"] - 1) < 0.15
    first, last = (f"{run['steps'][number]['loss']:.2f}" for number in (0, -1))
    assert f"loss falls from {first} to {last}" in " ".join(page("docs/attention.md").split())


def test_the_coverage_of_intervals_is_the_recorded_one() -> None:
    figures, shown = recorded("evaluation-coverage.json"), " ".join(page("docs/evaluation.md").split())
    for name, words in (("scores", "Intervals of scores hold it in"), ("differences", "intervals of differences in")):
        shares = [row["coverage"] for row in figures[name]]
        assert f"{words} {100 * min(shares):.1f} % to {100 * max(shares):.1f} %" in shown
    assert f"{figures['trials']:,} evaluations" in shown


def test_the_attention_table_is_the_recorded_one() -> None:
    for row in recorded("attention-cpu.json")["rows"]:
        figures = f"| {row['length']:,} | {row['full_s']:.3f} s | {row['s2_s']:.3f} s | {row['ratio']:.1f}x |"
        assert figures in page("docs/attention.md")


def test_the_table_of_training_steps_is_the_recorded_one() -> None:
    for row in recorded("training-cpu.json")["rows"]:
        times = f"| {row['length']:,} | {row['full_s']:.3f} s | {row['s2_s']:.3f} s | {row['ratio']:.1f}x"
        assert f"{times} | {row['s2_step_mb']:.0f} MB |" in page("docs/benchmarks.md")


def test_the_table_of_servers_is_the_recorded_one() -> None:
    columns = ["transformers-5", "transformers-4.57", "vllm"]
    same = {(row["consumer"], row["method"]): row["same"] for row in recorded("consumers-cpu.json")["rows"]}
    shown = {"linear": "`linear`, `ntk`, `theta`, `yarn`, `llama3`", "longrope": "`longrope`, one list of factors"}
    shown |= dict.fromkeys(("ntk", "yarn", "llama3"), shown["linear"])
    shown |= {"longrope_switching": "`longrope`, two lists", "dynamic": "`dynamic`"}
    assert {method for _, method in same} == set(shown)
    for method, label in shown.items():
        cells = ["same" if same[consumer, method] else "differs" for consumer in columns]
        assert f"| {label} | {' | '.join(cells)} |" in page("docs/release.md")


def test_peers_in_training_are_the_recorded_ones() -> None:
    record, shown = recorded("peers-training-cpu.json"), page("docs/benchmarks.md")
    cells = {(cell["rows"], cell["length"], cell["system"]): cell for cell in record["cells"]}
    for rows, length in (*(("packed", 2048 << n) for n in range(4)), ("single", 16_384)):
        ours, in_full, *peers = (cells[rows, length, name] for name in ("ropeway", "ropeway-full", "trl", "transformers"))
        figures = [f"{cell['tokens_per_s']:,.0f}, {cell['peak_mb']:,.0f} MB" for cell in (ours, in_full, *peers)]
        faster = " and ".join(f"{ours['tokens_per_s'] / peer['tokens_per_s']:.1f}x" for peer in peers)
        less = " and ".join(f"{peer['peak_mb'] / ours['peak_mb']:.1f}x" for peer in peers)
        label = f"{length:,}" if rows == "packed" else f"{length:,}, one document"
        assert f"| {label} | {' | '.join(figures)} | {faster} | {less} |" in shown
        assert len({f"{cell['loss']:.3f}" for cell in (in_full, *peers)}) == 1, "in full all have the same loss"
    for system, found in record["checks"].items():
        assert found["same_rows"]
        assert found["documents_see_each_other"] == (system == "no-positions")


def test_the_list_for_short_prompts_is_the_recorded_one() -> None:
    shown, record = page("docs/rope.md"), recorded("short-factors-cpu.json")
    found = record["found"]
    difference = (
        f"{found['difference']:.3f} nats [{found['low']:.3f}, {found['high']:.3f}] on {found['num_deciding']} deciding works"
    )
    assert difference.replace("-", "−") in shown
    assert f"| {found['share']:g} of the way, which `find_short_factors` took |" in shown.replace("| | ", "| ")
    for row in record["comparisons"]:
        measured, base = row["numerator"], row["denominator"]
        if (
            (base["arm"], base["length"]) == ("base", 512)
            and measured["length"] == 512
            and measured["arm"].startswith("fine_tuned")
        ):
            assert f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in shown


def test_the_probe_of_smollm2_is_the_recorded_one() -> None:
    shown, record = page("docs/attention.md"), recorded("smollm2-probe-cpu.json")
    scores = record["rise_of_the_loss_by_layer_in_groups"]
    best = sorted(range(len(scores)), key=lambda layer: -scores[layer])
    assert sorted(best[: len(record["chosen"])]) == record["chosen"]
    for layer in best[:5]:
        assert f"{layer} (+{scores[layer]:.3f})" in shown
    assert scores[best[5]] < 0.09
