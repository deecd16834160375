"""`ropeway inspect`: what is in shards, as tables on the terminal and a plot in a file."""

import re
from pathlib import Path

from rich.console import Console

from data_schemas.addresses import is_remote, local_path
from data_schemas.errors import UserError
from data_schemas.storage import Storage


def show_shards(location: str, plot: Path | None) -> None:
    """Print and plot what the shards at `location` (a folder or a URI) hold. The plot's file is the last line.

    UserError if there are no finished shards, or they are damaged.
    """
    from tasks.pack.inspection.figures import inspect_shards, shipped_tokenizer
    from tasks.pack.inspection.plot import plot as draw
    from tasks.pack.inspection.tables import show

    folder, documents = local_path(location), None
    if is_remote(location):
        address = re.fullmatch(r"(.+)/shards/([0-9a-f]{32})/?", location)
        storage = Storage(address[1] if address else location)
        shards = storage.find("shards", address[2]) if address else None
        if shards is None:
            raise UserError(f"There are no finished shards at {location}: give STORAGE/shards/DIGEST, as `prepare` printed it.")
        parent = storage.find("documents", shards.manifest.parents["documents"])
        folder, documents = shards.path, parent.manifest if parent else None
    found = inspect_shards(folder, documents, shipped_tokenizer(folder))
    show(found, Console())
    picture = plot or Path(f"shards-{found.digest[:12]}.png")
    draw(found, picture)
    print(picture, flush=True)
