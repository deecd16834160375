"""Members of a zip file that is one document (EPUB, DOCX), with limits on what they grow to."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator

from tasks.ingest.reading.compression import refuse_bomb
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.records import Unusable

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Office files begin with when they are encrypted, or of before 2007


class Members:
    """Members of one zip file. All that is read together must stay within `max_expansion` times the file's size."""

    def __init__(self, archive: zipfile.ZipFile, num_bytes: int, max_expansion: float) -> None:
        self._archive, self._num_bytes, self._max_expansion = archive, num_bytes, max_expansion
        self._num_read = 0
        self.names = frozenset(archive.namelist())

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a member. Raises Unusable: corrupt, truncated, encrypted, too_large, decompression_bomb."""
        data = bytearray()
        try:
            with self._archive.open(name) as member:
                while block := member.read(1 << 20):
                    data += block
                    self._num_read += len(block)
                    refuse_bomb(self._num_read, self._num_bytes, self._max_expansion)
                    if len(data) > max_bytes:
                        raise Unusable("too_large", f"{name} has more than {max_bytes:,} bytes")
        except KeyError as error:
            raise Unusable("corrupt", f"{name} is missing") from error
        except RuntimeError as error:  # NotImplementedError too
            raise Unusable("encrypted" if "encrypted" in str(error) else "corrupt", f"{name}: {error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Unusable("corrupt", f"{name}: {error}") from error
        return bytes(data)


@contextlib.contextmanager
def opened_members(files: Files, file: SourceFile) -> Iterator[tuple[str, Members]]:
    """(local path of the file, its members). Raises Unusable."""
    with files.local_path(file) as path:
        with open(path, "rb") as stream:
            start = stream.read(len(_OLE))
            num_bytes = stream.seek(0, 2)
        if not num_bytes:
            raise Unusable("empty", "an empty file")
        if start == _OLE:
            raise Unusable("encrypted", "an Office file that is encrypted, or of a version before 2007")
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            is_cut = start.startswith(b"PK")
            raise Unusable("truncated" if is_cut else "corrupt", "no table of contents of a zip file at its end") from error
        with archive:
            yield path, Members(archive, num_bytes, files.max_expansion)
