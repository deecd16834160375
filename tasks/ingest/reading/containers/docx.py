"""Word documents (.docx, ISO/IEC 29500), as Markdown: mammoth turns styles into HTML, which is then converted."""

import re

from tasks.ingest.reading.containers.zipped import Members, opened_members
from tasks.ingest.reading.files import Files, SourceFile
from tasks.ingest.reading.html.markdown import to_markdown
from tasks.ingest.reading.html.parsing import parse_html
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable, whole_file

_MAX_XML_BYTES = 30_000_000  # mammoth holds the document as a tree, some 50 times its size
_FORMULA = re.compile(rb"<\w+:oMath[\s>]")
_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Quote'] => blockquote > p:fresh
p[style-name='Intense Quote'] => blockquote > p:fresh
p[style-name='Block Text'] => blockquote > p:fresh
p[style-name='Quotations'] => blockquote > p:fresh
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Preformatted Text'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='Code'] => pre:separator('\\n')
r[style-name='HTML Code'] => code
r[style-name='Source Text'] => code
r[style-name='Verbatim Char'] => code
"""  # names in Word, LibreOffice and pandoc


def read_docx(files: Files, file: SourceFile, origin: Origin, max_bytes: int) -> Document | Refused:
    """The document of a file: headings, paragraphs, lists, tables, footnotes.

    Comments, deleted text and formulas are left out; `changes` counts the formulas.
    """
    try:
        with opened_members(files, file) as (path, members):
            num_formulas = _checked(members)
            text = to_markdown(parse_html(_html(path)))
        if len(text) > max_bytes:
            raise Unusable("too_large", f"more than {max_bytes:,} characters")
        changes = (("formula", num_formulas),) if num_formulas else ()
        return whole_file(text, file.num_bytes or 0, "markdown", origin, changes)
    except Unusable as problem:
        return problem.refused(origin.uri, 0)


def _checked(members: Members) -> int:
    """Number of formulas. Raises Unusable for what is not a Word document, and for one that would fill the memory."""
    if "[Content_Types].xml" not in members.names:
        raise Unusable("corrupt", "a zip file, but not a Word document")
    left, num_formulas = _MAX_XML_BYTES, 0
    for name in sorted(members.names):
        if name.endswith((".xml", ".rels")):
            data = members.read(name, left)
            left -= len(data)
            num_formulas += len(_FORMULA.findall(data))
            if b"<!DOCTYPE" in data:
                raise Unusable("corrupt", f"{name} has a document type, which Word documents must not have")
    return num_formulas


def _html(path: str) -> str:
    import mammoth

    try:
        with open(path, "rb") as stream:
            found = mammoth.convert_to_html(
                stream, style_map=_STYLES, convert_image=mammoth.images.img_element(lambda image: {})
            )
    except MemoryError:
        raise
    except Exception as error:  # the library has no errors of its own
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Unusable("corrupt", f"not a Word document that can be read ({type(error).__name__})") from error
    return f"<html><body>{found.value}</body></html>"
