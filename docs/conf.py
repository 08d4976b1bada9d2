"""Sphinx's settings for the web book; docs/book.py stages the pages that they apply to.

Nothing may come from the network: formulas become MathML here, which browsers draw themselves, where Sphinx
would fetch a script.
"""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "cbd"
author = copyright = "The cbd authors"
html_title = "cbd"
extensions = ["myst_nb"]

include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "results/**.md"]
exclude_patterns = ["docs/index.md"]  # the front page is staged one folder up

nb_execution_mode = "off"  # the outputs that are committed are shown
nb_render_markdown_format = "gfm"  # a cell that shows a table in Markdown
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # numbers and code stay as they were written

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "use_fullscreen_button": False,
    # No bar on top: its hidden button would take the clicks of a phone's menu (issue 986 of the theme).
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_show_search_summary = False  # a page opened from disk may not read others
html_static_path = ["book.css", "book.js"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]


def inline_math(page, node):
    """Write a formula as MathML into a page of HTML."""
    page.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(page, node):
    """The same for a formula on a line of its own, which scrolls where it is too wide."""
    page.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Tell Sphinx about the renderer of formulas."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
