"""`ropeway inspect`: what is in shards, as tables on the terminal, a plot and a data card in files, and a copy elsewhere."""

import re
from pathlib import Path

from rich.console import Console

from data_schemas.addresses import is_remote, local_path
from data_schemas.errors import UserError
from data_schemas.spelling import refuse_misspelt
from data_schemas.storage import Storage


def show_shards(location: str, plot: Path | None, push: str | None = None) -> None:
    """Print and plot what the shards at `location` (a folder or a URI) hold, and write their data card beside the plot.

    With `push`, the shards are copied there; their address is then the last line, else the plot's file. UserError if there are
    no finished shards, they are damaged, or they cannot be copied.
    """
    from tasks.pack.inspection.figures import inspect_shards, shipped_tokenizer
    from tasks.pack.inspection.plot import plot as draw
    from tasks.pack.inspection.tables import show
    from tasks.publish.destinations.shards import push_shards

    refuse_misspelt(location, "The folder of shards")
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
    if found.card:
        page = picture.with_name(f"{picture.stem}-card.md")
        page.write_text(found.card.markdown(), encoding="utf-8")
        page.with_suffix(".json").write_text(found.card.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
        print(page, flush=True)
    print(picture, flush=True)
    if push:
        print(push_shards(folder, push), flush=True)
