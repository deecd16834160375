"""What is in a page's text stays in the document's text: no escapes, no lost lines, no lost marks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html as lxml_html

from tasks.ingest.reading.html.main_text import main_text
from tasks.ingest.reading.html.markdown import to_markdown
from tasks.ingest.reading.records import Unusable
from tests.tasks.ingest.reading_example import read

FILLER = "<p>" + "The rest of the page is ordinary prose about bridges. " * 20 + "</p>"


def page(body: str) -> str:
    return f"<html><head><title>Notes</title></head><body><main>{body}{FILLER}</main></body></html>"


def text_of(body: str) -> str:
    """The Markdown of `body` on a page, without the filler."""
    text = main_text(page(body))
    return text[: text.index("The rest of the page")].strip("\n")


def test_names_code_quotations_and_asides_of_a_page_are_kept(tmp_path: Path) -> None:
    code = "def a():\n    return 1\n\n\ndef b():\n    return 2\n"
    body = (
        "<h1>Notes on names</h1><p>Call __init__ and snake_case with *args, see [1], in 2021.</p>"
        "<blockquote><p>A quotation that must keep its mark.</p></blockquote>"
        f'<pre><code class="language-python">{code}</code></pre><aside><p>An aside that belongs to the text.</p></aside>'
    )
    (tmp_path / "page.html").write_text(page(body))
    (document,) = read(str(tmp_path)).documents
    assert document.format == "markdown"
    assert document.text.startswith(
        "# Notes on names\n\nCall __init__ and snake_case with *args, see [1], in 2021.\n\n"
        f"> A quotation that must keep its mark.\n\n```python\n{code}```\n\nAn aside that belongs to the text.\n\nThe rest"
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>a\n  b<br>c <b> bold </b>and<i>slanted</i></p>", "a b\nc **bold** and*slanted*"),
        ("<p>use <code>a_b`c</code> or <kbd>x</kbd></p>", "use ``a_b`c`` or `x`"),
        ("<p><b>a <b>b</b></b> <b></b></p>", "**a b**"),
        ("<h2>Two <b>words</b><a class='headerlink' href='#two'>¶</a></h2>", "## Two words"),
        ("<ul><li>one<ul><li>in one</li></ul></li><li><p>two</p><p>more</p></li></ul>", "- one\n  - in one\n- two\n\n  more"),
        ("<ol start=9><li>nine<li>ten</ol>", "9. nine\n10. ten"),
        ("<blockquote><p>a</p><blockquote>b</blockquote><ul><li>c</ul></blockquote>", "> a\n>\n> > b\n>\n> - c"),
        ("<pre>\n\tx\n\n\n  y &lt;b&gt;\n</pre>", "```\n\tx\n\n\n  y <b>\n```"),
        ("<pre>```\nfence\n```</pre>", "````\n```\nfence\n```\n````"),
        ("<div class='highlight-python3 notranslate'><div><pre>x = 1</pre></div></div>", "```python3\nx = 1\n```"),
        ("<pre class='sourceCode bash'><code>ls</code></pre>", "```bash\nls\n```"),
        ("<table><tr><th>a<th>b</tr><tr><td>1<td>x|y<br>z</table>", "| a | b |\n| --- | --- |\n| 1 | x|y z |"),
        ("<table><tr><td><h2>In a layout</h2><td><p>text</p></table>", "## In a layout\n\ntext"),
        ("<table><tr><td>alone</table>", "alone"),
        ("<dl><dt>rope<dd>a cord<dt>knot<dd>a loop</dl>", "rope\n: a cord\n\nknot\n: a loop"),
        ("<p>before<hr>after</p>", "before\n\n---\n\nafter"),
        ("<p>2021<sup><a href='#n1'>1</a></sup> and x<sup>2</sup> [<a href='#c'>3</a>]</p>", "2021[^1] and x2 [3]"),
        ("<p>He said <q>no</q>.</p>", "He said “no”."),
        ("<p>E is <math alttext='mc^2'><mi>m</mi></math>; <script type='math/tex'>a_b</script></p>", "E is $mc^2$; $a_b$"),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>", "漢(kan)"),
        ("<p>seen<span style='display: none'>x</span><script>y</script><span hidden>z</span> too</p>", "seen too"),
        ("<p>&nbsp;</p><p> a&nbsp;b </p>", "a\xa0b"),
        ("<p># no heading</p><p>1. no list</p><p>\\* as it is</p>", "# no heading\n\n1. no list\n\n\\* as it is"),
    ],
)
def test_each_element_as_markdown(body: str, text: str) -> None:
    assert text_of(f"<div>{body}</div>") == text


@given(st.lists(st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1), min_size=1))
def test_no_character_of_a_paragraph_is_changed(words: list[str]) -> None:
    element = lxml_html.Element("p")
    element.text = " ".join(words)
    assert to_markdown(element).removesuffix("\n") == " ".join(word for word in " ".join(words).split(" ") if word) or (
        element.text.isspace()
    )


def test_what_is_around_the_main_text_is_left_out() -> None:
    around = (
        "<html><body><header><nav><a href='/'>Home</a></nav></header><div class='layout'><article>"
        f"<h1>Ropes</h1>{FILLER}<div class='share-buttons'><p>Share this</p></div>"
        "<ul class='see'><li><a href='/1'>Another page of ours</a></li><li><a href='/2'>And one more</a></li></ul>"
        f"<section><h2>Notes</h2><p>A short note.</p></section>{FILLER}</article>"
        "<div class='side'><p><a href='/3'>Popular</a></p></div></div><footer>Copyright and terms</footer></body></html>"
    )
    text = main_text(around)
    assert text.startswith("# Ropes\n\nThe rest")
    assert "## Notes\n\nA short note.\n" in text
    assert text.count("The rest of the page") == 40
    for noise in ("Home", "Share this", "Another page", "Popular", "Copyright"):
        assert noise not in text


def test_a_page_of_which_no_main_text_is_found_is_kept_whole() -> None:
    assert main_text("<html><body><div>Only</div><div>this<script>x</script></div></body></html>") == "Only\n\nthis\n"


@pytest.mark.parametrize(
    ("body", "reason"), [("<script>x</script>", "empty"), ("", "empty"), ("a\0b", "nul_bytes"), ("\ud800", "lone_surrogates")]
)
def test_pages_without_text_or_with_characters_of_none_are_refused(body: str, reason: str) -> None:
    with pytest.raises(Unusable) as raised:
        main_text(f"<html><body>{body}</body></html>" if body else "")
    assert raised.value.reason == reason


@pytest.mark.parametrize("tag", ["div", "blockquote", "ul><li", "b", "table><tr><td", "span"])
def test_the_text_of_deeply_nested_elements_is_kept_and_does_not_grow(tag: str) -> None:
    opened = f"<{tag}>" * 600
    body = f"{opened}deep text{'<br>line' * 3000}"
    text = main_text(f"<html><body>{body}</body></html>")
    assert "deep text" in text
    assert text.count("line") == 3000
    assert len(text) < 20 * len(body)


def test_a_page_nested_deeper_than_the_parser_reads_is_refused_rather_than_cut() -> None:
    with pytest.raises(Unusable, match="nested too deeply"):
        main_text("<p>first</p>" + "<div>" * 5000 + "deep text")
