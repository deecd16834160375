"""An HTML page as a tree, with limits against pages that are made to be slow."""

import re
from typing import Any

from tasks.ingest.reading.records import Unusable

MAX_HTML_BYTES = 20_000_000  # the parser holds the page as a tree, some 20 times its size
# The parser compares each attribute of a tag with all others; long tags hold images as data, or are made to take hours.
_LONG_TAG = re.compile(r"<([A-Za-z][A-Za-z0-9]{0,20})\b[^<>]{4000,}>")


def without_long_tags(page: str) -> str:
    """The page with the attributes of very long tags removed."""
    return _LONG_TAG.sub(r"<\1>", page)


def parse_html(page: str) -> Any:
    """The root element of a page (`lxml.html.HtmlElement`). Raises Unusable for a page without one, or with a NUL."""
    from lxml import etree, html

    if (position := page.find("\0")) >= 0:
        raise Unusable("nul_bytes", f"a NUL at character {position}")
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        # As bytes, because the parser refuses a string that declares an encoding.
        root = html.document_fromstring(page.encode(), parser=parser)
    except UnicodeEncodeError as error:
        raise Unusable("lone_surrogates", f"half a surrogate pair at character {error.start}") from error
    except (etree.LxmlError, ValueError) as error:
        raise Unusable("empty", "no element in the HTML") from error
    if any(entry.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT for entry in parser.error_log):
        raise Unusable("corrupt", "elements nested too deeply, behind which the parser reads nothing")
    return root
