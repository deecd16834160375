"""Which elements of a page are not its text: navigation, lists of links, comments, notices.

trafilatura chooses the main text, but it loses and changes parts of it. So its choice only points to the element that holds
the main text, and everything in that element stays unless it is clearly something else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tasks.ingest.reading.html.elements import BLOCKS, is_hidden

_CORE_SHARE = 0.9  # of the chosen text
_MIN_CHOSEN_CHARS = 200  # of text chosen in a page, to trust the choice
_LINKED = 0.6  # share of an element's text in links
_KNOWN = 0.5  # share of a block's word pairs that trafilatura chose
_NOT_TEXT = frozenset(["nav", "footer", "form", "dialog", "menu", "search"])
_NOT_TEXT_ROLES = frozenset(["navigation", "search", "banner", "contentinfo", "dialog", "alertdialog", "menu", "menubar"])
_NOT_TEXT_NAMES = re.compile(
    r"(?:^|[-_ ])(?:nav|navbar|navigation|breadcrumbs?|cookies?|consent|share|sharing|social|related|recommended|newsletter|"
    r"subscribe|promo|advert|advertisement|ads?|sponsored|comments?|disqus|sidebar|toolbar|pagination|pager|popup|modal)(?:$|[-_ ])",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


@dataclass
class _Text:
    """Characters of visible text in an element: all, in links, and in blocks that trafilatura chose."""

    total: int = 0
    linked: int = 0
    chosen: int = 0


def not_main(root: Any, chosen: str | None) -> set[Any]:
    """The topmost elements that are left out. `chosen`: the main text as trafilatura gives it."""
    texts = _measured(root, _Known(chosen or ""))
    body = next((child for child in root.iterchildren("body")), root)
    core = _core(body, texts) if chosen and texts[body].chosen >= _MIN_CHOSEN_CHARS else body
    above = set(core.iterancestors())
    return set(_left_out(body, core, above, texts))


def _core(body: Any, texts: dict[Any, _Text]) -> Any:
    """The deepest element with nearly all of the chosen text."""
    needed = _CORE_SHARE * texts[body].chosen
    core = body
    while True:
        deeper = next((c for c in core if c in texts and c.tag in BLOCKS and texts[c].chosen >= needed), None)
        if deeper is None or deeper.tag in ("p", "pre", "td", "li", "tr", "tbody"):
            return core
        core = deeper


def _left_out(body: Any, core: Any, above: set[Any], texts: dict[Any, _Text]) -> Iterator[Any]:
    from lxml import etree

    inside = 0  # the core, or something in it
    walk = etree.iterwalk(body, events=("start", "end"))
    left: Any = None
    for event, element in walk:
        if event == "end":
            inside -= element is core
            left = None if element is left else left
            continue
        inside += element is core
        if element is core or element in above or left is not None:
            continue
        text = texts.get(element)
        if text is None or element.tag not in BLOCKS:
            continue
        if (not text.chosen) if not inside else _is_boilerplate(element, text):
            left = element
            walk.skip_subtree()
            yield element


def _is_boilerplate(element: Any, text: _Text) -> bool:
    if text.chosen > 0.1 * text.total:
        return False
    if element.tag in _NOT_TEXT or element.get("role") in _NOT_TEXT_ROLES:
        return True
    name = f"{element.get('class') or ''} {element.get('id') or ''}"
    if name != " " and _NOT_TEXT_NAMES.search(name):
        return True
    return element.tag not in ("p", "pre", "table", "td", "tr", "li") and text.linked > _LINKED * text.total


class _Known:
    """The pairs of neighbouring words of the chosen text, and its lines of one word."""

    def __init__(self, chosen: str) -> None:
        words = _WORD.findall(chosen)
        self._pairs = set(map(hash, pairwise(words)))
        self._words = set(words)

    def share(self, text: str) -> float:
        """Share of the word pairs of `text` that are known; of its words if it has only one."""
        words = _WORD.findall(text)
        if len(words) < 2:
            return float(bool(words) and words[0] in self._words)
        return sum(hash(pair) in self._pairs for pair in pairwise(words)) / (len(words) - 1)


def _measured(root: Any, known: _Known) -> dict[Any, _Text]:
    """The text of every visible element. Only text whose nearest block was chosen counts as chosen."""
    from lxml import etree

    texts: dict[Any, _Text] = {}
    stack: list[tuple[Any, _Text, list[str]]] = []  # of blocks: with the pieces of their own text
    num_links = 0

    def add(piece: str | None) -> None:
        if piece and not piece.isspace() and stack:
            length = len(piece.strip())
            stack[-1][1].total += length
            stack[-1][1].linked += length if num_links else 0
            stack[-1][2].append(piece)

    hidden: Any = None
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        if event == "start":
            if element is not root and is_hidden(element):
                hidden = element
                walk.skip_subtree()
                continue
            num_links += element.tag == "a"
            if element.tag in BLOCKS or element is root:
                stack.append((element, _Text(), []))
            add(element.text)
            continue
        if element is hidden:
            hidden = None
        else:
            num_links -= element.tag == "a"
            if stack and stack[-1][0] is element:
                _, own, pieces = stack.pop()
                text = "".join(pieces)
                if text and known.share(text) >= _KNOWN:
                    own.chosen += sum(len(piece.strip()) for piece in pieces)
                texts[element] = own
                if stack:
                    outer = stack[-1][1]
                    outer.total += own.total
                    outer.linked += own.linked
                    outer.chosen += own.chosen
        if element is not root:
            add(element.tail)
    return texts
