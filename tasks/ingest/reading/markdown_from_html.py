"""The main text of an HTML page as Markdown, so that its headings and paragraphs can be found again."""

import re

from tasks.ingest.reading.records import Unusable

MAX_HTML_BYTES = 20_000_000  # the parser holds the page as a tree, some 20 times its size
# The parser compares each attribute of a tag with all others; long tags hold images as data, or are made to take hours.
_LONG_TAG = re.compile(r"<([A-Za-z][A-Za-z0-9]{0,20})\b[^<>]{4000,}>")


def main_text(page: str) -> str:
    """Headings, paragraphs, lists, tables and code of `page` without its navigation (by trafilatura). Raises Unusable."""
    import trafilatura

    try:
        text = trafilatura.extract(
            _LONG_TAG.sub(r"<\1>", page),
            output_format="markdown",
            include_formatting=True,
            include_tables=True,
            include_comments=False,
            include_links=False,
            include_images=False,
            favor_recall=True,
            with_metadata=False,
        )
    except (ValueError, TypeError, AttributeError, RecursionError, LookupError) as error:
        raise Unusable("not_text", f"the HTML cannot be parsed ({type(error).__name__})") from error
    if not text:
        raise Unusable("empty", "no main text in the HTML")
    return text
