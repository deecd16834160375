"""How a file is read and how its text is marked up, by its name."""

import posixpath
from typing import Literal

from tasks.ingest.globs import COMPRESSED_SUFFIXES

Container = Literal["text", "html", "jsonl", "parquet", "arrow", "json", "csv", "pdf", "epub", "docx", "warc"]

_CONTAINERS: dict[str, Container] = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".pdf": "pdf",
    ".epub": "epub",
    ".docx": "docx",
    ".warc": "warc",
}
_NOT_READ = {
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "convert it to CSV, JSON Lines or Parquet"),
    **dict.fromkeys((".doc", ".odt", ".rtf", ".ppt", ".pptx"), "convert it to DOCX, Markdown or HTML"),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".djvu", ".ps"), "convert it to EPUB, PDF or text"),
}
_PROSE = {".txt": "plain", ".md": "markdown", ".markdown": "markdown", ".rst": "rst", ".tex": "latex"}
_MARKUP = _PROSE | {".py": "python", ".pyi": "python"}


def names(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


_CODE_SUFFIXES = names("""
    .ada .adb .ads .asm .bash .bat .c .cc .cfg .cjs .clj .cljs .cmake .coffee .conf .cpp .cs .css .cu .cuh .cxx .d .dart
    .elm .erl .ex .exs .f .f90 .f95 .fish .for .fs .fsx .go .gradle .graphql .groovy .h .hcl .hh .hpp .hrl .hs .htm .html .hxx
    .ini .java .jl .js .json .jsonc .jsx .kt .kts .less .lisp .lua .m .mjs .mk .ml .mli .mm .nim .nix .pas .php .pl .pm
    .proto .ps1 .r .rb .rkt .rs .s .sass .scala .scm .scss .sh .sol .sql .sv .svelte .swift .tcl .tf .thrift .toml .ts .tsx
    .v .vb .vhd .vhdl .vim .vue .xml .xsd .xslt .yaml .yml .zig .zsh
""")
_CODE_NAMES = names("Makefile GNUmakefile Dockerfile Rakefile Gemfile Vagrantfile Jenkinsfile CMakeLists.txt")


def compression_of(name: str) -> str | None:
    """ ".gz", ".zst" or None."""
    return next((suffix for suffix in COMPRESSED_SUFFIXES if name.lower().endswith(suffix)), None)


def without_compression(name: str) -> str:
    """ "a.txt.gz" is an "a.txt"."""
    return name[: -len(suffix)] if (suffix := compression_of(name)) else name


def container_of(name: str) -> Container:
    """How documents are stored in a file of this name, compressed or not."""
    return _CONTAINERS.get(posixpath.splitext(without_compression(name))[1].lower(), "text")


def instead_of(name: str) -> str | None:
    """What to do with a file that is not read as a document, such as .xls or .odt; None for a file that is."""
    return _NOT_READ.get(posixpath.splitext(without_compression(name))[1].lower())


def text_format_of(name: str) -> str:
    """The name in TEXT_FORMATS for the text of a file of this name."""
    base = posixpath.basename(without_compression(name))
    suffix = posixpath.splitext(base)[1].lower()
    if base in _CODE_NAMES or suffix in _CODE_SUFFIXES:
        return "code"
    return _MARKUP.get(suffix, "plain")
