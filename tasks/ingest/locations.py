"""A remote URI of the corpus as its parts: folder, glob pattern, archive."""

import re
from dataclasses import dataclass

from tasks.ingest.globs import has_magic, split_pattern

_HTTP = ("http", "https")


@dataclass(frozen=True)
class Location:
    """A URI as folder and pattern. `archive` is the part after `zip://…::`, or empty."""

    protocol: str
    root: str
    pattern: str
    archive: str

    @property
    def filesystem(self) -> str:
        """The URI of the fixed part."""
        return f"{self.protocol}://{self.root}" + (f"::{self.archive}" if self.archive else "")

    @property
    def is_zip(self) -> bool:
        return self.protocol == "zip"


def parse_location(uri: str) -> Location:
    """Split a remote URI into its fixed part and the glob pattern after it, which may be empty."""
    first, _, rest = uri.partition("::")
    protocol, _, path = first.partition("://")
    # A question mark in a web address begins its query.
    is_pattern = has_magic(re.sub(r"\?.*", "", path) if protocol in _HTTP else path)
    root, pattern = split_pattern(path) if is_pattern else (path, "")
    return Location(protocol, root, pattern, rest)
