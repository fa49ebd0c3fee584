"""`python -m admin_nmt.host > docs/fairseq-changes.md`."""

import sys

from tabulate import tabulate

from admin_nmt.host.patches import NEEDED, TABLE

PAGE = """# What installing this package changes in fairseq

Made by `python -m admin_nmt.host`; a test compares this page with the table in
`admin_nmt/host/patches.py`, and that table with what is really replaced.

fairseq has no hooks for most of what deep Transformers, today's PyTorch and exact resuming need, so
`admin_nmt` replaces the functions below by decorated forms of themselves when fairseq is imported.
The files of fairseq stay as they are. `ADMIN_NMT_AUTOLOAD=0` in the environment leaves fairseq alone
altogether; `ADMIN_NMT_WITHOUT=TOPIC,TOPIC` leaves single topics out{needed}.

{table}
"""


def page() -> str:
    """The page, in Markdown."""
    rows = [[change.topic, f"`{change.what}`", change.why, change.scope.value] for change in TABLE]
    headers = ["topic", "replaced or registered", "what and why", "concerns"]
    needed = f" (all but {', '.join(f'`{topic}`' for topic in NEEDED)})"
    return PAGE.format(needed=needed, table=tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    sys.stdout.write(page())
