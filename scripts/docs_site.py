"""Hook of mkdocs.yml: links that leave docs/ lead somewhere on a code host, and are text on the site."""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace `[text](../file)` by its text where the file lies outside docs/; all other links are
    checked by the strict build."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        return match[1] if target.startswith("../") else match[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\((\.\./[^)]*)\)", inside, markdown)
