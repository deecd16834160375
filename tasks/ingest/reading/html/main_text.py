"""The main text of an HTML page as Markdown, so that its headings and paragraphs can be found again."""

from tasks.ingest.reading.html.main_content import not_main
from tasks.ingest.reading.html.markdown import to_markdown
from tasks.ingest.reading.html.parsing import parse_html, without_long_tags
from tasks.ingest.reading.records import Unusable


def main_text(page: str) -> str:
    """Headings, paragraphs, lists, quotations, tables and code of `page` without its navigation. Raises Unusable."""
    page = without_long_tags(page)
    root = parse_html(page)
    text = to_markdown(root, not_main(root, _chosen(page)))
    if not text:
        raise Unusable("empty", "no main text in the HTML")
    return text


def _chosen(page: str) -> str | None:
    """The main text as trafilatura finds it; None if it finds none or fails."""
    import trafilatura

    try:
        text: str | None = trafilatura.extract(
            page,
            output_format="txt",
            include_formatting=False,
            include_tables=True,
            include_comments=False,
            include_links=False,
            include_images=False,
            favor_recall=True,
            with_metadata=False,
        )
    except (ValueError, TypeError, AttributeError, RecursionError, LookupError):
        return None
    return text
