"""Meaningless words: keys of needles, variables, and words to be counted."""

from __future__ import annotations

import numpy as np

ADJECTIVES = (
    "able amber azure bold brave brief bright broad calm clean clear cold crisp dark deep dry eager early empty fair fast fine "
    "firm fresh gentle glad gold grand grave green happy hard heavy high honest hot humble idle jolly keen kind large late "
    "light lone long loud low lucky mild neat new noble odd old pale plain proud quick quiet rapid rare red ripe rough round "
    "safe sharp shy silver slim slow small smooth soft sour steep still strong sunny sweet tall tame thin tiny vast warm wide "
    "wild wise young"
)
NOUNS = (
    "acorn anchor anvil apple arrow badger barn basket beacon bell birch boat bottle bridge broom bucket cabin candle canoe "
    "castle cedar chair clock cloud coat comet coral crane crow desk door drum eagle ember falcon feather fern field finch "
    "flute forest fox garden gate goat hammer harbor hat hawk heron hill horse island ivy kettle kite ladder lake lamp lantern "
    "lemon lion maple meadow mill mirror moon moss needle oak orchard otter owl paddle pear pebble pine planet plum pond "
    "quill raven reed river robin rose sail shell spoon stone table tiger tower tulip turtle valley violin wagon walnut "
    "whale willow window wolf wren"
)
CONSONANTS, VOWELS, LOWER, UPPER = "bcdfghjklmnpqrstvwxz", "aeiou", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INVENTED = (CONSONANTS, VOWELS, CONSONANTS, VOWELS, CONSONANTS)
NUM_INVENTED = 20 * 5 * 20 * 5 * 20


def word_list(text: str) -> tuple[str, ...]:
    """The words of `text`."""
    return tuple(text.split())


def key_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different names like "amber-otter"."""
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    chosen = rng.choice(len(adjectives) * len(nouns), count, replace=False)
    return [f"{adjectives[i // len(nouns)]}-{nouns[i % len(nouns)]}" for i in chosen.tolist()]


def invented_words(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different words of five letters like "kapom", at most `NUM_INVENTED`."""
    return _spell(_INVENTED, count, rng)


def variable_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different names of five capital letters, as RULER's."""
    return _spell((UPPER,) * 5, count, rng)


def coded_words(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different strings of six small letters, as RULER's."""
    return _spell((LOWER,) * 6, count, rng)


def _spell(places: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    sizes = tuple(len(letters) for letters in places)
    chosen = np.unravel_index(rng.choice(int(np.prod(sizes)), count, replace=False), sizes)
    return ["".join(letters[i] for letters, i in zip(places, word, strict=True)) for word in zip(*chosen, strict=True)]
