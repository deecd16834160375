"""From an HTML page to the Markdown of its main text: `main_text`. `markdown` converts a tree, and `main_content` says which
elements of a page are not its text. EPUB and DOCX files use `markdown` too.
"""
