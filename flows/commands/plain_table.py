"""A table of texts as they are: rich takes words in square brackets, such as [interval] or a folder's name, for styles and drops them."""

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """Nothing in `columns`, `rows` or `title` is read as markup."""
    table = Table(*map(escape, columns), title=escape(title) or None, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
