"""How everything measured differs from its paper, in one place: `docs/evaluation.md` shows this table, and a test compares both.

Counts come from the code that uses them, so they cannot go stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_schemas.evaluation_params import TASK_NAMES
from tasks.evaluate.prompts import common_words, graph_walk, niah, variable_tracking, words
from tasks.evaluate.prompts.material import PROMISED_LENGTH
from tasks.evaluate.prompts.prompt import RANKED_TASK
from tasks.evaluate.published.names import NOT_COMPARABLE, PUBLISHED_PERPLEXITIES, PUBLISHED_TASKS, RULER_PUBLISHED

OWN_MEASURES = (*TASK_NAMES, RANKED_TASK, "perplexity", "LongPPL")


@dataclass(frozen=True)
class Deviation:
    """`names` are what rows and reports call it; `paper` is what it follows, `kind` whether figures can be compared."""

    names: tuple[str, ...]
    paper: str
    kind: Literal["own", "published"]
    differences: tuple[str, ...]


_RULER, _MIDDLE = "RULER (arXiv 2404.06654)", "Lost in the Middle (arXiv 2307.03172)"
_ADJECTIVES, _NOUNS = len(words.ADJECTIVES.split()), len(words.NOUNS.split())
_NEEDLES = (
    "Held-out documents hide the needles, not essays.",
    f"Keys come from {_ADJECTIVES} adjectives and {_NOUNS} nouns.",
    "Needles go to line or sentence ends where one is near.",
)
_SPREAD = "Several needles lie one in each equal part of the text, spread evenly over the samples."

ALL_OWN = (
    "All of Ropeway's own tasks: prompts in Ropeway's own words; a chat template for own_corpus, and for all with "
    "`evaluation.chat_template`. Where one answer is right, it is forced in one pass instead of generated. Otherwise the published "
    "limit of new tokens holds, but at least the answer's tokens and at most twice as many. The length counts BOS and answer. "
    f"From {PROMISED_LENGTH} tokens up."
)
ALL_PUBLISHED = (
    "All published tasks: no chat template (RULER's `base`), so figures of chat models are not matched. BOS is added where the "
    "tokenizer adds one, as the authors' wrappers do. Greedy decoding; output ends at the end-of-sequence token."
)

DEVIATIONS = (
    Deviation(
        ("passkey",),
        "passkey (arXiv 2305.16300)",
        "own",
        ("Held-out text instead of repeated noise.", "A grid of depths.", "The number does not occur in the text by chance."),
    ),
    Deviation(
        ("key_value",),
        _MIDDLE,
        "own",
        (
            "All depths of a sample share one object and ask for different keys.",
            "The prompt ends with the asked key and a quote.",
            "Eight hexadecimal digits instead of UUIDs where these do not fit.",
            "The last pair has a comma too.",
        ),
    ),
    Deviation(
        ("short_key_value",),
        _MIDDLE,
        "own",
        (
            "As key_value.",
            "Keys are invented words of five letters and values have four digits, so that small models can do it.",
            "Two keys may have the same value.",
        ),
    ),
    Deviation(("niah_single",), _RULER, "own", (*_NEEDLES, "The needle is swept over the depths; RULER draws one of 40.")),
    Deviation(
        ("niah_multikey",),
        _RULER,
        "own",
        (*_NEEDLES, f"{niah.NUM_NEEDLES} keys.", "The asked needle is swept over the depths.", _SPREAD),
    ),
    Deviation(
        ("niah_multivalue",),
        _RULER,
        "own",
        (*_NEEDLES, f"{niah.NUM_NEEDLES} values of one key, in the order of the text.", _SPREAD),
    ),
    Deviation(
        ("niah_multiquery",),
        _RULER,
        "own",
        (*_NEEDLES, f"{niah.NUM_NEEDLES} keys, all asked for, in the order of the question.", _SPREAD),
    ),
    Deviation(
        ("variable_tracking",),
        _RULER,
        "own",
        (
            "Held-out text instead of repeated noise.",
            f"One chain of {variable_tracking.NUM_HOPS} hops, as in RULER.",
            "The example has no text around its chain, and is left out where it does not fit the run's shortest length.",
        ),
    ),
    Deviation(
        ("common_words",),
        _RULER,
        "own",
        (
            "Invented words of five letters instead of English ones.",
            "No example.",
            f"Counts below {common_words.REPEATS[0]} where a list does not fit the run's shortest length.",
        ),
    ),
    Deviation(
        ("frequent_words",),
        _RULER,
        "own",
        ("The vocabulary holds every word that occurs at least once; RULER's size follows the length.",),
    ),
    Deviation(
        ("document_qa",),
        _MIDDLE,
        "own",
        (
            "The user's questions. Passages have no titles.",
            "Passages that do not fit are dropped from the end.",
            "One answer: its exact tokens. Several: the output may contain any of them, on any line and without normalisation.",
        ),
    ),
    Deviation(
        ("facts_in_text",),
        "BABILong (arXiv 2406.10149)",
        "own",
        (
            "Sentences, names and places of Ropeway's own, and three kinds of question, after bAbI's tasks 1 to 3.",
            "The first and the last needed fact are a quarter of the text apart.",
            "No examples. A person's or thing's places are named once.",
        ),
    ),
    Deviation(
        ("associative_needle",),
        "NoLiMa (arXiv 2502.05167)",
        "own",
        ("Pairs and sentences of Ropeway's own.", "In held-out text, among other people."),
    ),
    Deviation(
        ("graph_walk",),
        "GraphWalks",
        "own",
        (
            f"Invented words for nodes; {min(graph_walk.STEPS)} to {max(graph_walk.STEPS)} steps, and parents.",
            "Right only with exactly the set of nodes; GraphWalks scores F1.",
        ),
    ),
    Deviation(("spaced_evidence",), "LongPiBench (arXiv 2410.14641)", "own", ("Two pieces of evidence of Ropeway's own.",)),
    Deviation(
        ("own_corpus",),
        "HELMET (arXiv 2410.02694)",
        "own",
        ("Questions are made by rules from the user's held-out documents.",),
    ),
    Deviation(
        (RANKED_TASK,),
        "none",
        "own",
        ("Compares the reorder strategies.", "The gold passage has rank r with a probability proportional to 1 / r."),
    ),
    Deviation(
        ("perplexity",),
        "none",
        "own",
        ("The same last tokens of each document are scored at every length; context grows to the left.",),
    ),
    Deviation(
        ("LongPPL",),
        "LongPPL (arXiv 2410.23771)",
        "own",
        (
            "The evaluator is a measured model.",
            "Only the fixed target tokens are candidates.",
            "Each has its own short context: the base's window, or the shortest length.",
        ),
    ),
    Deviation(
        RULER_PUBLISHED,
        _RULER,
        "published",
        (
            "Prompts, golds and scores equal the authors' code byte for byte.",
            "A prompt that cannot fit is refused; their code tries for ever.",
            "The number of samples can be lowered (`evaluation.published_samples`; published: 500).",
        ),
    ),
    Deviation(
        tuple(name for name in PUBLISHED_TASKS if name not in RULER_PUBLISHED),
        _MIDDLE,
        "published",
        (
            "Prompts and scores equal the authors' code byte for byte.",
            "A set whose longest prompt exceeds the longest measured length is left out; nothing is cut.",
        ),
    ),
    Deviation(
        ("yarn", "yarn_sliding"),
        "YaRN (arXiv 2309.00071)",
        "published",
        (
            "On the texts of `evaluation.published_data.texts`; without them, on held-out documents, and then "
            + NOT_COMPARABLE
            + ".",
            "Texts of at least the longest measured length (sliding: half of it), instead of 131,072 and 16,384 tokens.",
            "The first token of a window without BOS is not scored, as in their code.",
        ),
    ),
    Deviation(
        ("longlora",),
        "LongLoRA (arXiv 2309.12307)",
        "published",
        (
            "Texts as for YaRN. The authors' files are tokenized already; here each document begins with BOS where the tokenizer adds one.",
            "e is exact; their code takes 2.71828, which changes the sixth digit.",
        ),
    ),
    Deviation(
        ("longppl",),
        "LongPPL (arXiv 2410.23771)",
        "published",
        (
            "Texts as for YaRN, of at least half the longest measured length instead of 16,384 of 32,768 tokens.",
            "Measured at every length above the short context of 4,096 tokens.",
            "The first token of a text is never scored; their code takes the last token's loss for it.",
        ),
    ),
)


def deviations_table() -> str:
    """The table as Markdown, Ropeway's own tasks first."""
    lines = [ALL_OWN, "", ALL_PUBLISHED, "", "| measured | follows | figures | differences |", "| --- | --- | --- | --- |"]
    for one in DEVIATIONS:
        names = "all of `ruler_*`" if one.names == RULER_PUBLISHED else ", ".join(f"`{name}`" for name in one.names)
        kind = NOT_COMPARABLE if one.kind == "own" else "as published"
        lines.append(f"| {names} | {one.paper} | {kind} | {' '.join(one.differences)} |")
    return "\n".join(lines)


def described() -> tuple[str, ...]:
    """Every name in the table."""
    return tuple(name for one in DEVIATIONS for name in one.names)


def measured() -> tuple[str, ...]:
    """Everything that an evaluation can measure."""
    return (*OWN_MEASURES, *PUBLISHED_TASKS, *PUBLISHED_PERPLEXITIES)
