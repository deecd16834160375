"""`ropeway releases` and `ropeway rollback`: list the versions of releases, and serve an earlier one again."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tasks.publish.destinations.history import list_releases, rollback


def show_releases(where: str) -> None:
    """Print every version at a storage root, a destination or `hub:org/name`. The digits shown are enough to name a version."""
    rows = list_releases(where)
    if not rows:
        print(f"There is no release at {where}.")
        return
    table = Table("release", Column("version", min_width=12), "published", "base", "tokens", "MB", "")
    for row in rows:
        states = {
            "current": row.is_current,
            "incomplete": not row.is_complete,
            "rolled back": row.is_rolled_back,
            "not served": row.is_held_back,
        }
        state = ", ".join(name for name, holds in states.items() if holds)
        created = f"{row.created:%Y-%m-%d %H:%M}" if row.created else ""
        tokens = f"{row.target_length:,}" if row.target_length else ""
        table.add_row(
            escape(row.name), row.digest[:12], created, escape(row.base or ""), tokens, f"{row.num_bytes / 1e6:,.1f}", state
        )
    Console().print(table)


def go_back(where: str, name: str, digest: str | None) -> None:
    """Make an earlier version the current one, after checking all its files."""
    done = rollback(where, name, digest)
    change = f"before it was {done.before}." if done.before != done.now else "it already was."
    print(f"{done.name} is now {done.now}; {change}")
    if done.before not in (None, done.now):
        print(
            f"Publishing {done.before} again will not serve it. To serve it again: ropeway rollback {done.name} {done.before} --at {where}"
        )
