"""Best-fit decreasing over a capacity tree, compiled: longest sequence first, each into the fullest row that has room.

    rooms        0   1   2   3   4   5   6   7         a leaf for each possible room of an open row;
    open rows            a       c       b             a node is set while some leaf below it is.
                                                       A sequence of 3 tokens goes up from leaf 3 to the first set
    tree             1       1       1       0         node on its right and down again: row c, with room 4.

Best-fit decreasing needs at most 11/9 of the fewest rows possible plus a constant (Johnson et al. 1974). With the tree, as in
Ding et al. 2024 (arXiv:2404.10830), a placement costs log(capacity). Importing this module imports numba. The first call
compiles; later processes load the result from numba's cache if it can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_DIGIT_BITS = 12  # of the radix sort: a table of 4096 counts stays in the nearest cache


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled, with numba's cache beside the source or in the user's folder; without one on a read-only install."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:
        return njit(function)


def best_fit_decreasing(lengths: np.ndarray, capacity: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as (members int64 [n], row_ends int64 [num_rows]): row r holds `members[row_ends[r-1]:row_ends[r]]`, longest first.

    `lengths` are int [n], each from 1 to `capacity`. Every `window` sequences are packed separately, so memory beyond
    the result is bounded by the window and the capacity. Of equally full rows the latest is used, and equally long sequences
    keep their order: the result is the same on any machine.
    """
    lengths = np.ascontiguousarray(lengths, np.int64)
    if not len(lengths):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return _pack(lengths, capacity, min(window, len(lengths)))


@_compiled
def _pack(lengths, capacity, window):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Pack window after window; tree and stacks are made once and left empty by each window."""
    n = len(lengths)
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.uint8)
    newest = np.full(capacity + 1, -1, np.int64)  # for each room the row that last got it,
    older = np.empty(window, np.int64)  # and for each row the one before it with the same room
    room = np.empty(window, np.int64)
    row_of = np.empty(window, np.int64)
    order = np.empty(window, np.int64)
    spare = np.empty(window, np.int64)
    members = np.empty(n, np.int64)
    row_ends = np.empty(n, np.int64)
    num_rows = 0
    for start in range(0, n, window):
        end = min(start + window, n)
        sorted_order = _longest_first(lengths, start, end, capacity, order, spare)
        rows = _fill(lengths, sorted_order, end - start, capacity, leaves, tree, newest, older, room, row_of)
        _group(sorted_order, row_of, end - start, rows, start, members, row_ends[num_rows:])
        for row in range(rows):  # what is still open is closed
            left = room[row]
            if left > 0 and newest[left] >= 0:
                newest[left] = -1
                _clear(tree, leaves + left)
        num_rows += rows
    return members, row_ends[:num_rows].copy()


@_compiled
def _longest_first(lengths, start, end, capacity, order, spare):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Indices from `start` to `end` by falling length, equal ones in their order: a radix sort from the lowest digit."""
    n = end - start
    for i in range(n):
        order[i] = start + i
    mask = (1 << _DIGIT_BITS) - 1
    shift = 0
    while capacity >> shift:
        counts = np.zeros(mask + 2, np.int64)
        for i in range(n):
            counts[(((capacity - lengths[order[i]]) >> shift) & mask) + 1] += 1
        for digit in range(mask + 1):
            counts[digit + 1] += counts[digit]
        for i in range(n):
            digit = ((capacity - lengths[order[i]]) >> shift) & mask
            spare[counts[digit]] = order[i]
            counts[digit] += 1
        order, spare = spare, order
        shift += _DIGIT_BITS
    return order


@_compiled
def _fill(lengths, order, n, capacity, leaves, tree, newest, older, room, row_of):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Place the sequences; `row_of[i]` becomes the row of `order[i]`. Returns the number of rows."""
    rows = 0
    for i in range(n):
        length = lengths[order[i]]
        found = _smallest_room(tree, leaves, length)
        if found:
            row = newest[found]
            newest[found] = older[row]
            if newest[found] < 0:
                _clear(tree, leaves + found)
        else:
            row, found = rows, capacity
            rows += 1
        left = found - length
        row_of[i] = row
        room[row] = left
        if left > 0:
            older[row] = newest[left]
            newest[left] = row
            node = leaves + left
            while node and not tree[node]:
                tree[node] = 1
                node >>= 1
    return rows


@_compiled
def _smallest_room(tree, leaves, length):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The smallest room of an open row that is at least `length`, or 0."""
    node = leaves + length
    if tree[node]:
        return length
    while node > 1 and (node & 1 or not tree[node + 1]):
        node >>= 1
    if node <= 1:
        return 0
    node += 1
    while node < leaves:
        node *= 2
        if not tree[node]:
            node += 1
    return node - leaves


@_compiled
def _clear(tree, node):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Unset a leaf and every node that has no set leaf left below it."""
    tree[node] = 0
    while node > 1 and not tree[node ^ 1]:
        node >>= 1
        tree[node] = 0


@_compiled
def _group(order, row_of, n, rows, start, members, row_ends):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write `order` grouped by row into `members` from `start` on, and where each row ends into `row_ends`."""
    place = np.zeros(rows + 1, np.int64)
    for i in range(n):
        place[row_of[i] + 1] += 1
    for row in range(rows):
        place[row + 1] += place[row]
        row_ends[row] = start + place[row + 1]
    for i in range(n):
        members[start + place[row_of[i]]] = order[i]
        place[row_of[i]] += 1
