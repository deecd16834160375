"""URIs: their parts, and how they are shown to people."""

import re
from dataclasses import dataclass

from tasks.ingest.globs import has_magic, split_pattern

_USER_INFO = re.compile(r"(://)[^/?#\s]*@")
_SECRET_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:sig|token|key|secret|passw|credential|auth|expires|policy)[^=&#\s]*=)[^&#\s:]*", re.IGNORECASE
)
_HTTP = ("http", "https")


def without_secrets(uri: str) -> str:
    """`uri` without the user name and password and without the values of signatures and keys in its query."""
    return _SECRET_QUERY.sub(r"\1...", _USER_INFO.sub(r"\1", uri))


def is_remote(uri: str) -> bool:
    """Whether `uri` is for fsspec: a chain, or a scheme other than file."""
    return "::" in uri or ("://" in uri and not uri.startswith("file://"))


@dataclass(frozen=True)
class Location:
    """A URI as folder and pattern. `archive` is what stands behind `zip://…::`; empty where there is none."""

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
    """Cut a remote URI into the fixed part and the glob pattern behind it (empty without one)."""
    first, _, rest = uri.partition("::")
    protocol, _, path = first.partition("://")
    # A question mark in a web address begins its query.
    is_pattern = has_magic(re.sub(r"\?.*", "", path) if protocol in _HTTP else path)
    root, pattern = split_pattern(path) if is_pattern else (path, "")
    return Location(protocol, root, pattern, rest)
