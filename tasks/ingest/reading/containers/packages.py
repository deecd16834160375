"""The libraries that some formats need, installed as extras of Ropeway."""

from collections.abc import Iterable
from importlib.util import find_spec

from data_schemas.errors import UserError
from tasks.ingest.reading.file_formats import container_of
from tasks.ingest.reading.files import SourceFile

EXTRAS = {"pdf": "pypdf", "docx": "mammoth", "warc": "warcio"}  # the extra of this name installs this library


def refuse_missing_packages(files: Iterable[SourceFile]) -> None:
    """UserError if a library is missing that one of the files needs."""
    missing = {kind for kind, package in EXTRAS.items() if find_spec(package) is None}
    if not missing:
        return
    needing = [file for file in files if container_of(file.relative) in missing]
    if needing:
        kinds = sorted({container_of(file.relative) for file in needing})
        others = f" (and {len(needing) - 1} other files)" if len(needing) > 1 else ""
        patterns = ", ".join(f'"**/*.{kind}"' for kind in kinds)
        raise UserError(
            f"{needing[0].uri}{others} cannot be read without a package that is not installed: run "
            f"`pip install 'ropeway[{','.join(kinds)}]'`, or set exclude: [{patterns}] for the source."
        )
