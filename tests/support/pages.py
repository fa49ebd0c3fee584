"""The pages of the documentation, and the commands on them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


#: Pages of the guide, in the order in which a user follows them.
PAGES = ("install", "training", "data", "evaluation", "export", "analysis", "launch", "pruning")


GUIDE = "\n".join(
    (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in PAGES
)


#: One page per method.
METHODS = {
    name: (REPOSITORY / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("admin", "realformer", "r-drop", "head-pruning")
}


#: The commands of docs/results/ are records of what was run for the figures beside them, with the
#: versions, the data and often the hours of their day: no test keeps them running.
RECORDS = REPOSITORY / "docs" / "results"


#: Every page whose commands a reader is to run.
READ = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("*.md", "docs/**/*.md", "[!.]*/README.md")
    for path in sorted(REPOSITORY.glob(folder))
    if path.parent != RECORDS
)


def commands(text: str) -> list[str]:
    """The lines of all bash blocks, comments and continuations removed."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command:
                found.append(re.sub(r"\s+", " ", command))
    return found
