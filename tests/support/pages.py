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


OTHERS = "\n".join(
    (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "troubleshooting",
        "migrating",
        "gpu",
        "huggingface",
        "python-api",
        "papers",
        "distillation",
        "serve",
        "alignments",
        "back-translation",
    )
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
