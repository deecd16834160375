"""Axes of context length and of perplexity, and points that stand side by side so that their intervals can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_schemas.report_sections import Bound
from tasks.evaluate.plots.figure import MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLAIN_UP_TO = 8192  # tokens; longer ones are written in k = 1024 tokens where they are whole ones
_MAX_TICKS = 8


def tokens_name(length: float) -> str:
    """2048 stays as it is; 131072 is 128k."""
    n = int(length)
    return f"{n // 1024}k" if n > _PLAIN_UP_TO and n % 1024 == 0 else str(n)


def tokens_label(what: str, lengths: Sequence[int]) -> str:
    """The axis's name with its unit."""
    return f"{what} ({'tokens, k = 1024' if any('k' in tokens_name(n) for n in lengths) else 'tokens'})"


def token_axis(axes: Axes, lengths: Sequence[int]) -> None:
    """The horizontal axis, on a binary logarithm, with a tick at every length or at every second, third …"""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(lengths[:: 1 + (len(lengths) - 1) // _MAX_TICKS])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens_name(value)))


def perplexity_axis(axes: Axes, values: Sequence[float]) -> None:
    """The vertical axis, logarithmic where the values span more than a factor of three. Ticks read 10 and 1.5, never 10.0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if max(values) > 3 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if max(values) < 30 * min(values) else (1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def mark_window(axes: Axes, window: int, first: float, last: float) -> None:
    """A line at the base's window, if the axis reaches it."""
    if first <= window <= last:
        axes.axvline(
            window, color=MUTED, linewidth=0.8, linestyle=":", label=f"base's window ({tokens_name(window)})", zorder=0
        )


def beside(x: Sequence[float], place: int, num_places: int, *, width: float, is_log: bool = False) -> list[float]:
    """`x` moved to one of `num_places` places within `width` around each; on a logarithmic axis `width` is in octaves."""
    shift = width * ((place + 0.5) / num_places - 0.5)
    return [value * 2**shift if is_log else value + shift for value in x]


def line_with_intervals(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[float],
    bounds: Sequence[tuple[Bound, Bound]],
    label: str,
    style: dict[str, Any],
) -> None:
    """A line whose points have a bar from the lower to the upper bound; a point without bounds has none."""
    gap = float("nan")
    bar_x = [position for at in x for position in (at, at, gap)]
    bar_y = [gap if bound is None else bound for low, high in bounds for bound in (low, high, None)]
    axes.plot(bar_x, bar_y, color=style["color"], linewidth=0.9, alpha=0.65, solid_capstyle="butt", label="_nolegend_")
    axes.plot(x, values, label=label, linewidth=1.2, markersize=3.2, **style)
