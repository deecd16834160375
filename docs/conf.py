"""The documentation site: `make docs`.

The site has the same tree as the repository, so a relative link works here and on a code host. Every link, to a page, an
anchor or a file, is checked: a dead one is a warning, and a warning fails the build.
"""

from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "Ropeway"
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/**.md",
    "docs/*.md",
    "docs/recipes/*.md",
    "benchmarks/results/demo/report.md",
    "benchmarks/results/demo-long/report.md",
    "tasks/model/demo_base/README.md",
]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_heading_anchors = 3  # named as code hosts name them
myst_fence_as_directive = ["mermaid"]
suppress_warnings = [
    "toc.not_included",  # pages that others link to and no menu shows
    "myst.header",  # a recorded report starts its sections at the third level
]

html_theme = "furo"
html_title = "Ropeway"
html_copy_source = False
html_show_copyright = False

# The menu stands here and not in README.md, which a code host shows as it is.
MENU = {
    "How it works": ("docs/index docs/recipes/README docs/architecture docs/data docs/retrieval-mix docs/models docs/rope docs/training "
                     "docs/attention docs/evaluation docs/extend-or-chunk docs/release "
                     "docs/orchestration docs/storage docs/security deploy/README"),
    "Look up": "docs/parameters docs/troubleshooting docs/benchmarks docs/glossary",
    "Change it": "CONTRIBUTING CHANGELOG",
}  # fmt: skip


def add_menu(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the menu to the first page, as Sphinx's toctree."""
    if page == root_doc:
        for caption, pages in MENU.items():
            entries = "\n".join(pages.split())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def add_entry(app: Sphinx, failure: Exception | None) -> None:
    """Write index.html, which leads to the first page."""
    if failure is None:
        (Path(app.outdir) / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n')


def setup(app: Sphinx) -> None:
    app.add_lexer("tree", TextLexer)  # a block that lists files, which a test compares with the repository
    app.connect("source-read", add_menu)
    app.connect("build-finished", add_entry)
