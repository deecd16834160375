"""The format of a record's text: named by a field or by the source, else guessed from its beginning."""

import re

from data_schemas.tables import TEXT_FORMATS
from tasks.chunk.format_guess import guess_format as guess_code

_SAMPLE_CHARS = 1 << 14
_NAMES = {
    "txt": "plain",
    "text": "plain",
    "text/plain": "plain",
    "md": "markdown",
    "text/markdown": "markdown",
    "text/x-rst": "rst",
    "restructuredtext": "rst",
    "tex": "latex",
    "text/x-tex": "latex",
    "application/x-tex": "latex",
    "application/x-latex": "latex",
    "html": "html",
    "xhtml": "html",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "py": "python",
    "text/x-python": "python",
}
_LATEX = re.compile(r"^[ \t]*\\(?:documentclass|begin\{document\}|(?:sub)*section\*?\{|chapter\*?\{|maketitle)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^\.\. (?:[\w:-]+::|_[^:\n]{1,200}:)|:[\w:+-]{1,40}:`[^`\n]{1,200}`", re.MULTILINE)
_UNDERLINED = re.compile(r"^\S[^\n]{0,200}\n([=~^\"'*+#<>_-])\1{2,}[ \t]*$", re.MULTILINE)
_ATX = re.compile(r"^#{1,6} \S[^\n]*$", re.MULTILINE)
_ATX_ALONE = re.compile(r"(?:\A|\n[ \t]*\n)#{1,6} \S[^\n]*(?=\n[ \t]*(?:\n|\Z)|\n#|\Z)")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*(?:\|[ \t]*)?:?-{3,}:?[ \t]*\|[-| :\t]*$", re.MULTILINE)
_MARKED = re.compile(r"\*\*\S[^*\n]{0,200}\*\*|\]\(\S|^[ \t]*[-*+] \S", re.MULTILINE)


def named_format(name: object) -> str | None:
    """The format, one of TEXT_FORMATS or `html`, that a format's name, media type or file suffix stands for."""
    if not isinstance(name, str):
        return None
    plain = name.split(";")[0].strip().lower().lstrip(".")
    return plain if plain in TEXT_FORMATS else _NAMES.get(plain)


def guess_format(text: str) -> str:
    """One of TEXT_FORMATS: what the text's first 16,384 characters leave little doubt about, else `plain`."""
    sample = text[:_SAMPLE_CHARS]
    if "\r" in sample:
        sample = sample.replace("\r\n", "\n").replace("\r", "\n")
    if "\\" in sample and len(_LATEX.findall(sample)) >= 2:
        return "latex"
    if (code := guess_code(sample)) in ("python", "code"):
        return code
    if (".. " in sample or ":`" in sample) and len(_DIRECTIVE.findall(sample)) >= 2 and not _FENCE.search(sample):
        return "rst"
    if _is_markdown(sample):
        return "markdown"
    return "plain"


def _is_markdown(sample: str) -> bool:
    """A table, a pair of fences, or headings: several of them, or one beside other marks. Comments of scripts stand in runs."""
    if ("---" in sample and _TABLE.search(sample)) or len(_FENCE.findall(sample)) >= 2:
        return True
    num_alone = len(_ATX_ALONE.findall(sample)) if "#" in sample else 0
    if not num_alone or 2 * num_alone < len(_ATX.findall(sample)):
        num_alone = 0
    if num_alone >= 2:
        return True
    num_marks = len(_MARKED.findall(sample))
    return bool(num_alone and num_marks) or (num_marks >= 3 and bool(_UNDERLINED.search(sample)))
