"""The space, its seeds and the race, over a made-up score: nothing here loads a model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import UserError
from tasks.model.rope_frequencies import default_frequencies, scaled_frequencies
from tasks.rope_search.decision import decide, far_behind, first_look
from tasks.rope_search.race import Race, RaceSettings, fewest_evaluations, most_passes, run_race
from tasks.rope_search.scores import Measured
from tasks.rope_search.seeds import closed_form, critical_theta, ntk_critical, seed_genomes
from tasks.rope_search.space import Candidate, RopeSpace, Space

COMPACT = RopeSpace(
    kind="compact",
    theta=1e4,
    num_pairs=32,
    original_length=512,
    target_length=4096,
    lower=1.0,
    upper=4.0,
    num_knots=4,
    attention=True,
)
FULL = replace(COMPACT, kind="full", attention=False)
SETTINGS = RaceSettings(evaluations=80, generation_size=8, first_samples=2, samples=6, finalists=2, text_weight=1.0, seed=3)


class MadeUp:
    """Scores candidates by their distance from hidden factors, differently on each sample; counts what it measures."""

    def __init__(self, hidden: Candidate) -> None:
        self._hidden = hidden
        self.measured: list[tuple[str, int]] = []
        self.candidates: list[Candidate] = []

    def __call__(self, candidates: list[Candidate], first: int, stop: int, why: str) -> list[Measured]:
        self.candidates += candidates
        self.measured += [(c.digest, sample) for c in candidates for sample in range(first, stop)]
        return [
            Measured(*(tuple(self._nats(c, s, 0.1 * part) for s in range(first, stop)) for part in (1, 2))) for c in candidates
        ]

    def _nats(self, candidate: Candidate, sample: int, offset: float) -> float:
        away = np.log(candidate.factors) - np.log(self._hidden.factors)
        noise = math.sin(7 * sample + 31 * float(np.sum(away)))
        return 2 + offset + float(np.mean(away**2)) + abs(candidate.attention - self._hidden.attention) + 0.002 * noise


def hidden(space: RopeSpace) -> Candidate:
    rising = np.minimum(12.0 ** (np.arange(32) / 17), 12 + 0.4 * np.arange(32))
    return Candidate(tuple(np.maximum.accumulate(rising)), 1.25 if space.attention else space.longrope_attention)


def raced(space: RopeSpace, settings: RaceSettings = SETTINGS) -> tuple[Race, MadeUp]:
    measure = MadeUp(hidden(space))
    return run_race(space, settings, measure, lambda *_: None), measure


@given(numbers=st.lists(st.floats(-20, 40), min_size=33, max_size=33), kind=st.sampled_from(["compact", "full"]))
def test_every_candidate_rises_within_its_bounds_whatever_is_proposed(numbers: list[float], kind: Space) -> None:
    space = replace(COMPACT, kind=kind)
    genome = space.repaired(numbers[: space.size + 1])
    found = space.candidate(genome)
    factors = np.asarray(found.factors)
    assert len(factors) == 32
    assert np.all(np.diff(factors) >= 0)
    assert factors[0] >= 1
    assert factors[-1] <= 4 * 8 + 1e-4
    assert 1 <= found.attention <= 1 + 0.25 * math.log(8)
    assert space.repaired(genome) == genome
    if kind == "compact":
        assert np.all(factors[math.ceil(genome[0]) :] >= 8 - 1e-4), (
            "at and above the critical pair: the theoretical factor or more"
        )


@pytest.mark.parametrize("space", [COMPACT, FULL])
def test_the_critical_pair_of_ntk_and_closed_forms_are_in_the_space(space: RopeSpace) -> None:
    assert space.theoretical_critical == 16  # 2 pi 10000^(15/32) = 471, and 2 pi 10000^(16/32) = 628 tokens
    flat = np.minimum(8.0 ** (np.arange(32) / 18), 8)
    assert space.candidate(space.fitted(flat, 1.2, 18)).factors == pytest.approx(flat, rel=1e-4)
    yarn = closed_form(space, "yarn")
    nearest = space.candidate(space.fitted(yarn.factors, yarn.attention)).factors
    assert np.abs(np.log(nearest) - np.log(yarn.factors)).max() < (0.35 if space.kind == "compact" else 1e-4)
    assert nearest[-1] == pytest.approx(8, rel=1e-4)


def test_closed_forms_turn_as_their_plans_do() -> None:
    base = default_frequencies(1e4, 64)
    at_pair = ntk_critical(COMPACT, 18)
    assert base / at_pair.factors == pytest.approx(default_frequencies(critical_theta(COMPACT, 18), 64))
    assert at_pair.factors[18] == pytest.approx(8)
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 512}
    scaled, attention = scaled_frequencies(parameters, 64, 4096, 4096)
    assert base / closed_form(COMPACT, "yarn").factors == pytest.approx(scaled)
    assert closed_form(COMPACT, "yarn").attention == attention


@pytest.mark.parametrize("space", [COMPACT, FULL])
def test_a_search_finds_better_than_its_seeds_measures_nothing_twice_and_keeps_its_budget(space: RopeSpace) -> None:
    race, measure = raced(space)
    assert race.num_evaluations == SETTINGS.evaluations == len({digest for digest, _ in measure.measured})
    assert len(set(measure.measured)) == len(measure.measured) <= most_passes(space, SETTINGS)
    assert len(race.best.scores) == SETTINGS.samples
    assert list(race.best_by_generation) == sorted(race.best_by_generation, reverse=True)
    seeds = MadeUp(hidden(space))([space.candidate(genome) for genome in seed_genomes(space, race.critical)], 0, 6, "")
    assert race.best.mean() < min(np.mean(seed.scores(1.0)) for seed in seeds) - 0.01


@pytest.mark.parametrize("sizes", [(2, 16), (3, 2), (16, 3), (64, 16)])
def test_what_is_foreseen_counts_no_more_finalists_than_a_generation_has(sizes: tuple[int, int]) -> None:
    generation_size, finalists = sizes
    settings = replace(SETTINGS, generation_size=generation_size, finalists=finalists)
    most = most_passes(COMPACT, settings)
    every = settings.evaluations * settings.samples  # each candidate on all samples
    assert most <= every
    assert len(raced(COMPACT, settings)[1].measured) <= most
    seeds = len(seed_genomes(COMPACT, 16))
    generations = -(-(settings.evaluations - fewest_evaluations(COMPACT) + 3) // generation_size)
    finals = (min(finalists, seeds) + generations * min(finalists, generation_size)) * (
        settings.samples - settings.first_samples
    )
    assert most <= settings.evaluations * settings.first_samples + finals


def test_a_search_is_the_same_to_the_last_bit_and_another_seed_is_another_search() -> None:
    first, measured_first = raced(COMPACT)
    again, measured_again = raced(COMPACT)
    assert (again, measured_again.measured) == (first, measured_first.measured)
    assert raced(COMPACT, replace(SETTINGS, seed=4))[0].best != first.best


def test_the_critical_pair_is_where_ntk_is_best() -> None:
    measure = MadeUp(ntk_critical(COMPACT, 19))
    race = run_race(COMPACT, replace(SETTINGS, evaluations=fewest_evaluations(COMPACT)), measure, lambda *_: None)
    assert race.critical == 19
    assert set(race.critical_means) >= {16, 18, 19, 20}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_length": 512}, "nothing to search"),
        ({"num_pairs": 4}, "only 4 pairs"),
        ({"original_length": 400_000, "target_length": 800_000}, "no critical dimension"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(COMPACT, **changes).check()


def test_what_is_far_behind_at_the_first_look_is_measured_no_further() -> None:
    assert [first_look(n) for n in (4, 12, 16, 20, 64)] == [4, 4, 4, 5, 16]
    found, near, far = (
        Measured(answers, (2.0,) * 4) for answers in ((1.0, 1.2, 1.1, 1.3), (1.2, 1.25, 1.35, 1.4), (7.0, 7.3, 7.1, 7.3))
    )
    measured = {"longrope": found, "yarn": near, "linear": far}
    assert far_behind(measured, 1.0, 0.95, tuple("abcd")) == ("linear",)
    assert far_behind(measured, 1.0, 0.95, tuple("aaaa")) == (), "one document shows nothing"


def test_factors_are_used_only_if_they_beat_every_rival_beyond_the_interval() -> None:
    found = Measured((1.0, 1.1, 1.2, 1.3), (2.0,) * 4)
    worse = Measured((1.5, 1.62, 1.7, 1.8), (2.0,) * 4)
    near = Measured((1.1, 1.0, 1.3, 1.25), (2.0,) * 4)
    certain = decide({"longrope": found, "yarn": worse, "linear": near}, ("yarn",), 1.0, 0.95, tuple("abcd"))
    assert certain.chosen == "longrope"
    assert certain.differences["yarn"].high < 0
    assert certain.level == pytest.approx(0.955)
    assert decide({"longrope": found, "yarn": near}, (), 1.0, 0.95, tuple("abcd")).chosen == "longrope", "without a rival"
    doubtful = decide({"longrope": found, "yarn": worse, "ntk": near}, ("yarn", "ntk"), 1.0, 0.95, tuple("abcd"))
    assert doubtful.chosen == "ntk"
    assert "do not beat NTK beyond" in doubtful.sentence()
    early = decide(
        {"longrope": found, "yarn": worse, "linear": Measured((9.0, 9.1), (2.0, 2.0))}, ("yarn",), 1.0, 0.95, tuple("abcd")
    )
    assert early.chosen == "longrope"
    assert early.differences["linear"].value == pytest.approx(-8.0)
    alike = decide({"longrope": found, "yarn": worse, "linear": near}, ("yarn",), 1.0, 0.95, tuple("aabb"))
    assert alike.differences["yarn"].high > certain.differences["yarn"].high, "two documents say less than four"


def test_a_noisy_rival_that_is_worse_is_not_taken_in_place_of_a_better_one_that_was_narrowly_beaten() -> None:
    def answers(*more: float) -> Measured:
        return Measured(tuple(1.0 + nats for nats in more), (2.0,) * len(more))

    found, close, noisy = answers(0, 0, 0, 0), answers(0.010, 0.009, 0.011, 0.010), answers(0.3, -0.1, 0.25, -0.02)
    early = answers(0.002, 0.002)  # measured on the first samples only
    measured = {"longrope": found, "yarn_1.5": close, "ntk_critical": noisy, "ntk": early}
    decision = decide(measured, ("yarn_1.5", "ntk_critical", "ntk"), 1.0, 0.95, tuple("abcd"))
    assert decision.unbeaten == ("ntk_critical",)
    assert decision.chosen == "yarn_1.5"
    assert decision.sentence() == (
        "The factors found do not beat NTK, critical beyond the interval, so the plan takes YaRN for 1.5x the target, the best of the "
        "closed forms that it can take."
    )
    assert decide(measured, ("yarn_1.5", "ntk"), 1.0, 0.95, tuple("abcd")).chosen == "longrope", "every rival is beaten"
