"""One digest of everything a corpus consists of, so that a changed file makes a new artifact."""

import hashlib
from pathlib import Path

from data_schemas.manifest import hash_file
from data_schemas.params import CorpusParams
from tasks.ingest.sources import list_files


def corpus_fingerprint(params: CorpusParams, leave_out: Path | None = None) -> str:
    """SHA-256 in hex over (source, relative path, content hash) of all matched files.

    When the files were written does not count, nor where they lie; the sources' own names stand in the stage's parameters.
    `leave_out`: see `list_files`.
    """
    listing = list_files(params.sources, leave_out)
    digest = hashlib.sha256()
    for file in listing.files:
        digest.update(f"{file.source_index}\0{file.relative}\0{_content_hash(file.path)}\n".encode())
    for refused in listing.refused:
        digest.update(f"{refused.source_uri}\0{refused.reason}\n".encode())
    return digest.hexdigest()


def _content_hash(path: Path) -> str:
    try:
        return hash_file(path) if path.is_file() else "not a regular file"
    except OSError:
        return "unreadable"
