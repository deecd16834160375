"""Blocks of Markdown, one below another, inside quotations and list items."""

import re
from dataclasses import dataclass

_MAX_DEPTH = 16  # deeper quotations and lists are not indented further
_FENCES = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


@dataclass(frozen=True)
class _Container:
    number: int
    first: str  # before the first line in it
    rest: str
    is_list: bool


class Blocks:
    """Collects blocks; each line gets the marks of the containers that are open."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._open: list[_Container] = []
        self._before: list[_Container] = []  # those of the block before
        self._num_opened = 0
        self._begun: set[int] = set()

    def open(self, first: str, rest: str, is_list: bool = False) -> None:
        """Put the next blocks into a container with these marks before its first line and before the others."""
        self._num_opened += 1
        if len(self._open) >= _MAX_DEPTH:
            first = rest = ""
        self._open.append(_Container(self._num_opened, first, rest, is_list))

    def close(self) -> None:
        if self._open:
            self._open.pop()

    def add(self, lines: list[str]) -> None:
        shared = self._shared()
        inside = self._open[:_MAX_DEPTH]
        begins_item = any(one.first != one.rest and one.number not in self._begun for one in inside[len(shared) :])
        if self._lines and not (begins_item and any(one.is_list for one in shared)):
            self._lines.append("".join(one.rest for one in shared).rstrip())
        first = "".join(one.rest if one.number in self._begun else one.first for one in inside)
        rest = "".join(one.rest for one in inside)
        self._lines += [(rest if number else first) + line if line else rest.rstrip() for number, line in enumerate(lines)]
        self._begun.update(one.number for one in inside)
        self._before = inside

    def text(self) -> str:
        return "\n".join(self._lines) + "\n" if self._lines else ""

    def _shared(self) -> list[_Container]:
        """The containers that hold both the block before and the next one."""
        num_shared = 0
        for one, other in zip(self._before, self._open, strict=False):
            if one.number != other.number:
                break
            num_shared += 1
        return self._before[:num_shared]


def fenced(text: str, language: str) -> list[str]:
    """The lines of a fenced block with `text` as it is. The fence is longer than any in the text."""
    longest = max((len(found) for found in _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}{language}", *text.split("\n"), fence]
