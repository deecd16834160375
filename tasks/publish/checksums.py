"""`SHA256SUMS`, in the format of `sha256sum -c`: every file of a release except itself, its signature and the manifest."""

from __future__ import annotations

from pathlib import Path

from data_schemas.manifest import MANIFEST_NAME, FileEntry, file_differences, hash_file

CHECKSUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"  # tasks.publish.signing
HUBS_OWN = (".gitattributes",)  # in every repository of the hub
_HUBS_CACHE = ".cache/huggingface/"  # in every folder that its client downloads to


def files_below(directory: Path) -> dict[str, Path]:
    """Every file and link, by POSIX path, sorted, without those that the hub and its client add to a release."""
    paths = {
        path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file() or path.is_symlink()
    }
    return {name: paths[name] for name in sorted(paths) if name not in HUBS_OWN and not name.startswith(_HUBS_CACHE)}


def listed_files(directory: Path) -> dict[str, Path]:
    """The files a release's checksums cover, by POSIX path below it, sorted."""
    return {name: path for name, path in files_below(directory).items() if name not in (CHECKSUMS, SIGNATURE, MANIFEST_NAME)}


def write_checksums(directory: Path) -> None:
    """Hash every file and write the list, sorted by path."""
    lines = [f"{hash_file(path)}  {name}\n" for name, path in listed_files(directory).items()]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def checksum_problems(directory: Path) -> list[str]:
    """One phrase for each line that is not a checksum, and each file that is not as listed."""
    text = (directory / CHECKSUMS).read_bytes().decode("utf-8", errors="replace")
    recorded, problems = {}, []
    for number, line in enumerate(text.splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if len(digest) != 64 or not separator or not name or name in recorded:
            problems.append(f"{CHECKSUMS} line {number} is not a checksum")
        recorded[name] = digest
    if text != "".join(f"{recorded[name]}  {name}\n" for name in sorted(recorded)):
        problems.append(f"{CHECKSUMS} is altered: it is not sorted, or not in the form that is written")
    # The hub's cache holds links to files; a link that leads nowhere is extra, or has no bytes and no hash.
    present = listed_files(directory)
    sizes = {name: path.stat().st_size if path.is_file() else 0 for name, path in present.items()}
    # SHA256SUMS states no sizes, so the hashes alone are compared.
    entries = [FileEntry(path=name, num_bytes=sizes.get(name, 0), sha256=recorded[name]) for name in sorted(recorded)]
    hashes = {name: hash_file(path) if path.is_file() else "" for name, path in present.items() if name in recorded}
    return problems + file_differences(entries, sizes, hashes.__getitem__, besides=())
