"""Counts the work of regular expressions and of strings, so that a test of cost needs no clock.

`count_steps` runs an expression as a backtracking engine does, on Python's own parse of it, and counts the characters that it
tries. `CountingText` is a string that counts the characters its methods read. `counting_work` puts both into modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from re import _constants as C
from re import _parser
from types import ModuleType
from typing import Any

import pytest


class Work:
    """The characters read so far."""

    def __init__(self) -> None:
        self.num_chars = 0


class CountingText(str):
    """A string whose methods add the characters they read to `work`."""

    work: Work

    @classmethod
    def of(cls, text: str, work: Work) -> CountingText:
        made = cls(text)
        made.work = work
        return made

    def __getitem__(self, key: Any) -> CountingText:
        found = str.__getitem__(self, key)
        self.work.num_chars += len(found)
        return CountingText.of(found, self.work)

    def _searched(self, found: int, start: int, end: int, is_reverse: bool = False) -> int:
        start, end = max(0, start), min(len(self), end)
        read = (end - found if is_reverse else found - start) if found >= 0 else end - start
        self.work.num_chars += max(0, read) + 1
        return found

    def find(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        end = len(self) if end is None else end
        return self._searched(str.find(self, sub, start, end), start, end)

    def rfind(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        end = len(self) if end is None else end
        return self._searched(str.rfind(self, sub, start, end), start, end, is_reverse=True)

    def _whole(name: str) -> Any:  # type: ignore[misc]
        def method(self: CountingText, *args: Any) -> Any:
            self.work.num_chars += len(self) + 1
            found = getattr(str, name)(self, *args)
            if isinstance(found, str):
                return CountingText.of(found, self.work)
            return [CountingText.of(part, self.work) for part in found] if isinstance(found, list) else found

        return method

    strip, lstrip, rstrip, split, rsplit = map(_whole, ("strip", "lstrip", "rstrip", "split", "rsplit"))
    replace, count, casefold, lower = map(_whole, ("replace", "count", "casefold", "lower"))


class CountingPattern:
    """An expression that gives what `re` gives and adds its steps to `work`."""

    def __init__(self, pattern: re.Pattern[str], work: Work) -> None:
        self._pattern, self._work = pattern, work
        self._tree = parsed(pattern)
        self.pattern, self.flags = pattern.pattern, pattern.flags

    def _count(self, text: str, start: int, end: int, is_anchored: bool) -> None:
        self._work.num_chars += count_steps(self._tree, self._pattern.flags, str(text), start, end, is_anchored)

    def match(self, text: str, pos: int = 0, endpos: int | None = None) -> re.Match[str] | None:
        end = len(text) if endpos is None else min(endpos, len(text))
        self._count(text, pos, end, is_anchored=True)
        return self._pattern.match(text, pos, end)

    def fullmatch(self, text: str, pos: int = 0, endpos: int | None = None) -> re.Match[str] | None:
        end = len(text) if endpos is None else min(endpos, len(text))
        self._count(text, pos, end, is_anchored=True)
        return self._pattern.fullmatch(text, pos, end)

    def search(self, text: str, pos: int = 0, endpos: int | None = None) -> re.Match[str] | None:
        end = len(text) if endpos is None else min(endpos, len(text))
        found = self._pattern.search(text, pos, end)
        self._count(text, pos, end, is_anchored=False)
        return found

    def finditer(self, text: str, pos: int = 0, endpos: int | None = None) -> Iterator[re.Match[str]]:
        end = len(text) if endpos is None else min(endpos, len(text))
        for found in self._pattern.finditer(text, pos, end):
            self._count(text, pos, end, is_anchored=False)
            pos = found.end() + (found.end() == found.start())
            yield found
        if pos <= end:
            self._count(text, pos, end, is_anchored=False)

    def findall(self, text: str) -> list[Any]:
        for _ in self.finditer(text):
            pass
        return self._pattern.findall(text)

    def sub(self, repl: str, text: str, count: int = 0) -> str:
        self._count(text, 0, len(text), is_anchored=False)
        return self._pattern.sub(repl, text, count)


@contextmanager
def counting_work(monkeypatch: pytest.MonkeyPatch, modules: list[ModuleType]) -> Iterator[Work]:
    """Within it, the expressions at the top of these modules add to the work."""
    work = Work()
    with monkeypatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, re.Pattern):
                    patch.setattr(module, name, CountingPattern(value, work))
                elif isinstance(value, dict) and value and all(isinstance(v, re.Pattern) for v in value.values()):
                    patch.setattr(module, name, {key: CountingPattern(v, work) for key, v in value.items()})
        yield work


# -- a backtracking engine


def parsed(pattern: re.Pattern[str]) -> list[Any]:
    """Python's own parse of an expression, made once."""
    key = (pattern.pattern, pattern.flags)
    if key not in _TREES:
        _TREES[key] = list(_parser.parse(*key))
    return _TREES[key]


def count_steps(tree: list[Any], flags: int, text: str, start: int, end: int, is_anchored: bool) -> int:
    """Characters tried by one match at `start`, or by a search from there to the first match."""
    engine = _Engine(text, end, flags)
    positions = [start] if is_anchored else range(start, end + 1)
    for position in positions:
        engine.steps += 1
        if engine.run(tree, 0, position) is not None:
            break
    return engine.steps


class _Engine:
    """Matches like `re`: greedy and lazy repeats, possessive repeats and atomic groups, look-around, groups."""

    def __init__(self, text: str, end: int, flags: int) -> None:
        self.text, self.end, self.flags = text, end, flags
        self.steps = 0
        self.groups: dict[int, tuple[int, int]] = {}

    def run(self, nodes: list[Any], index: int, position: int) -> int | None:
        """Where the rest of `nodes` ends, tried with every alternative; None if it does not match."""
        return next(self.ways(nodes, index, position), None)

    def ways(self, nodes: list[Any], index: int, position: int) -> Iterator[int]:
        """Every end, in the order in which an engine finds them."""
        while index < len(nodes) and (width := self.one(nodes[index], position)) is not None:
            if not width:
                return
            position, index = position + 1, index + 1
        if index == len(nodes):
            yield position
            return
        for middle in self.node(nodes[index], position):
            yield from self.ways(nodes, index + 1, middle)

    def one(self, node: Any, position: int) -> bool | None:
        """Whether a node of a single character matches; None if the node is of another kind."""
        op, value = node
        if op not in (C.LITERAL, C.NOT_LITERAL, C.ANY, C.IN):
            return None
        self.steps += 1
        if position >= self.end:
            return False
        character = self.text[position]
        if op is C.ANY:
            return bool(self.flags & re.DOTALL) or character != "\n"
        if op is C.IN:
            key = (id(value), character, self.flags)
            if (known := _KNOWN.get(key)) is None:
                known = _KNOWN[key] = self.inside(value, character)
            return known
        return self.same(character, value) == (op is C.LITERAL)

    def same(self, character: str, code: int) -> bool:
        return character == chr(code) or bool(self.flags & re.IGNORECASE and character.lower() == chr(code).lower())

    def inside(self, items: list[Any], character: str) -> bool:
        negate, found = False, False
        for op, value in items:
            if op is C.NEGATE:
                negate = True
            elif op is C.LITERAL:
                found |= self.same(character, value)
            elif op is C.RANGE:
                cases = {character, character.lower(), character.upper()} if self.flags & re.IGNORECASE else {character}
                found |= any(value[0] <= ord(case[:1]) <= value[1] for case in cases)
            else:
                found |= _CATEGORIES[value](character)
        return found != negate

    def node(self, node: Any, position: int) -> Iterator[int]:
        op, value = node
        if op in (C.MAX_REPEAT, C.MIN_REPEAT, C.POSSESSIVE_REPEAT):
            low, high, body = value
            high = self.end - position + 1 if high is C.MAXREPEAT else high
            if op is C.POSSESSIVE_REPEAT:
                longest = next(self.repeat(list(body), low, high, position, False), None)
                yield from () if longest is None else (longest,)
            else:
                yield from self.repeat(list(body), low, high, position, op is C.MIN_REPEAT)
        elif op is C.BRANCH:
            for branch in value[1]:
                yield from self.ways(list(branch), 0, position)
        elif op is C.SUBPATTERN:
            number, add, remove, body = value
            flags, self.flags = self.flags, (self.flags | add) & ~remove
            ends = self.ways(list(body), 0, position)
            while True:
                end = next(ends, None)
                if end is None:
                    break
                inner, self.flags = self.flags, flags
                self.groups[number] = (position, end)
                yield end
                self.flags = inner
            self.flags = flags
        elif op is C.ATOMIC_GROUP:
            end = self.run(list(value), 0, position)
            yield from () if end is None else (end,)
        elif op in (C.ASSERT, C.ASSERT_NOT):
            direction, body = value
            nodes = list(body)
            width = body.getwidth()[0] if direction < 0 else 0
            holds = position - width >= 0 and self.run(nodes, 0, position - width) is not None
            if holds == (op is C.ASSERT):
                yield position
        elif op is C.GROUPREF:
            first, last = self.groups.get(value, (0, 0))
            self.steps += last - first
            if self.text.startswith(self.text[first:last], position):
                yield position + last - first
        elif op is C.AT:
            self.steps += 1
            if self.at(value, position):
                yield position
        elif self.one(node, position):
            yield position + 1

    def at(self, where: Any, position: int) -> bool:
        before, after = self.text[position - 1 : position], self.text[position : min(position + 1, self.end)]
        if where is C.AT_BEGINNING:
            return not position or bool(self.flags & re.MULTILINE and before == "\n")
        if where is C.AT_END:
            return position == self.end or bool(self.flags & re.MULTILINE and after == "\n")
        if where is C.AT_END_STRING:
            return position == self.end
        if where is C.AT_BEGINNING_STRING:
            return not position
        is_edge = (before.isalnum() or before == "_") != (after.isalnum() or after == "_")
        return is_edge == (where is C.AT_BOUNDARY)

    def repeat(self, body: list[Any], low: int, high: int, position: int, is_lazy: bool) -> Iterator[int]:
        """Ends of `body` repeated low to high times. A body of one character needs no recursion."""
        if len(body) == 1 and body[0][0] in (C.LITERAL, C.NOT_LITERAL, C.ANY, C.IN):
            end = position
            if is_lazy:
                while end - position <= high:
                    if end - position >= low:
                        yield end
                    if not self.one(body[0], end):
                        return
                    end += 1
                return
            while end - position < high and self.one(body[0], end):
                end += 1
            for back in range(end, position + low - 1, -1):
                self.steps += 1
                yield back
            return
        stack = [(position, 0, None if is_lazy else self.ways(body, 0, position))]
        if is_lazy:
            raise NotImplementedError("a lazy repeat of more than a character")
        while stack:
            place, times, ends = stack[-1]
            end = next(ends, None) if ends is not None and times < high else None
            if end is not None and end > place:
                stack.append((end, times + 1, self.ways(body, 0, end)))
                continue
            stack.pop()
            if times >= low:
                yield place


_KNOWN: dict[tuple[int, str, int], bool] = {}  # whether a class has a character, by the class of a parse that is kept
_TREES: dict[tuple[str, int], Any] = {}
_CATEGORIES = {
    C.CATEGORY_SPACE: str.isspace,
    C.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    C.CATEGORY_DIGIT: str.isdecimal,
    C.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    C.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    C.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}
