"""What the elements of HTML mean to its conversion into Markdown (https://html.spec.whatwg.org, sections 4 and 15)."""

import re
from typing import Any

from tasks.ingest.reading.file_formats import names

HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCKS = names("""
    address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer form h1
    h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol optgroup p pre search section summary table tbody td tfoot
    th thead tr ul
""")
# Elements that show no text, or text that belongs to controls of the page.
UNSEEN = names("""
    applet audio base button canvas datalist embed frame frameset head iframe input link map meta noembed noframes noscript
    object option param script select source style svg template textarea title track video
""")
# Inside a cell these cannot be written in one line of a Markdown table.
NOT_IN_A_CELL = frozenset(["blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "pre", "table", "ul", "dl"])
CODE = frozenset(["code", "kbd", "samp", "tt"])
OPENING, CLOSING = {"q": "“"}, {"q": "”"}  # what a browser puts around the text
EMPHASIS = {"b": "**", "strong": "**", "i": "*", "em": "*"}

_EPUB_TYPE = "epub:type"  # as the parser of HTML names it
_NOT_SHOWN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_PERMALINKS = frozenset(["¶", "#", "§", "↑", "↩", "↩︎", "🔗", "🔖"])
_GUTTERS = frozenset(
    ["linenos", "lineno", "linenodiv", "line-numbers", "line-numbers-rows", "gutter", "headerlink", "anchorjs-link"]
)
_LANGUAGE = re.compile(r"^(?:language|lang|highlight-source|highlight|brush)[-:]([A-Za-z0-9+#.-]{1,30})$")
_NO_LANGUAGES = frozenset(["default", "none", "text", "plain", "plaintext", "nohighlight"])


def is_hidden(element: Any) -> bool:
    """Whether an element shows no text of its own: a script or a control, hidden, a permanent link or a line number."""
    if element.tag in UNSEEN:
        return True
    attributes = element.attrib
    if not attributes:
        return element.tag == "a" and _is_permalink(element)
    if "hidden" in attributes or attributes.get("aria-hidden") == "true" or _NOT_SHOWN.search(attributes.get("style", "")):
        return True
    if not _GUTTERS.isdisjoint(classes(element)):
        return True
    return element.tag == "a" and _is_permalink(element)


def is_note_mark(link: Any) -> bool:
    """Whether a link is the raised number of a note. Without a mark, `2021<sup>1</sup>` would read 20211."""
    parent = link.getparent()
    raised = link[0] if len(link) == 1 and link[0].tag == "sup" else None
    is_raised = raised is not None or (parent is not None and parent.tag == "sup")
    if "#" not in (link.get("href") or "") or (len(link) and raised is None):
        return False
    if not is_raised and link.get("role") != "doc-noteref" and "noteref" not in (link.get(_EPUB_TYPE) or ""):
        return False
    text = (link.text or "") + ((raised.text or "") if raised is not None else "")
    return text.strip().isalnum()


def classes(element: Any) -> list[str]:
    return (element.get("class") or "").split()


def language_of_code(pre: Any) -> str:
    """The language that the classes of `<pre>`, its `<code>` or the elements around it name; else empty."""
    around = [pre, *pre.iterchildren("code")][:2]
    parent = pre.getparent()
    for _ in range(2):
        if parent is not None:
            around.append(parent)
            parent = parent.getparent()
    for element in around:
        found_names = classes(element)
        if "sourceCode" in found_names:  # as pandoc writes it
            others = [name for name in found_names if name not in ("sourceCode", "numberLines", "literate")]
            if others:
                return others[0]
        for name in found_names:
            if (found := _LANGUAGE.match(name)) and found[1] not in _NO_LANGUAGES:
                return found[1]
    return ""


def tex_of_script(element: Any) -> str:
    """A formula that MathJax keeps in a script, between dollar signs; else empty."""
    kind = element.get("type") or ""
    if element.tag != "script" or not kind.startswith("math/tex") or not element.text:
        return ""
    return _dollars(element.text, "mode=display" in kind)


def tex_of_math(element: Any) -> str:
    """The TeX that a formula in MathML carries along, between dollar signs; else empty."""
    tex = element.get("alttext")
    if not tex:
        notes = (note for note in element.iter("annotation") if note.get("encoding") == "application/x-tex")
        tex = next((note.text for note in notes if note.text), None)
    return _dollars(tex, element.get("display") == "block") if tex else ""


def _dollars(tex: str, is_display: bool) -> str:
    plain = " ".join(tex.split())
    return f"$${plain}$$" if is_display else f"${plain}$"


def _is_permalink(link: Any) -> bool:
    return len(link) == 0 and (link.text or "").strip() in _PERMALINKS
