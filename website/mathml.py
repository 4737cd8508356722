"""Equations of the documentation as MathML: a hook of MkDocs, which runs while the site is built.

Fences named `math` hold LaTeX, which code hosts draw too. `pymdownx.arithmatex` marks them, and this hook replaces them with
MathML, which browsers draw by themselves: no script, no font and no request to another address.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_MARKED = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(text: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with MathML in place of its marked LaTeX.

    Args:
        text: The page's HTML.
        page: The page.
        config: MkDocs' settings; not read.
        files: The site's files; not read.

    Raises:
        PluginError: An equation is not LaTeX that can be read.
    """
    return _MARKED.sub(lambda match: _mathml(html.unescape(match[1]).strip(), page.file.src_uri), text)


def _mathml(latex: str, page: str) -> str:
    # The converter knows no `aligned`, only its numbered and its unnumbered relative.
    latex = latex.replace("{aligned}", "{align*}")
    try:
        mathml = convert(latex, display="block")
    except Exception as error:  # the converter has many kinds of its own, without a common base
        raise PluginError(f"{page}: an equation cannot be read ({type(error).__name__}): {latex}") from error
    if unread := re.findall(r"<mi>\\\w+</mi>|<mo>&amp;|<mi>&amp;", mathml):
        raise PluginError(f"{page}: {', '.join(unread)} of an equation is unknown: {latex}")
    # A name such as Linear is a function, not an operator with space on both sides.
    mathml = re.sub(r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>", mathml)
    return f'<div class="equation">{mathml}</div>'
