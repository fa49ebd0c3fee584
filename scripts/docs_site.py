"""Hook of mkdocs.yml: links to folders, and out of docs/, work on a code host and are text on the site."""

import posixpath
import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace `[text](target)` by its text where the target lies outside docs/ or is a folder, for which
    the site has no page; all other links are checked by the strict build."""
    folder = posixpath.dirname(page.file.src_uri)

    def served(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        missing = target.startswith("../") or Path(config.docs_dir, target).is_dir()
        return match[1] if missing else match[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)\)", served, markdown)
