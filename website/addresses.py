"""No page of the documentation loads anything from another address: a hook of MkDocs that says so while the site is built."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|href|data)=[\"']?(?:https?:)?//[^>]*>"
)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """The page as it is.

    Args:
        output: The page's HTML.
        page: The page.
        config: MkDocs' settings; not read.

    Raises:
        PluginError: A script, style, font or picture is elsewhere.
    """
    if found := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another address: {found[0]}")
    return output
