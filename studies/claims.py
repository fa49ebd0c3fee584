"""The front page of the results: each claim, the paper's figure, ours, the verdict.

    python -m studies.claims [--check]

Writes `docs/results/index.md` from `docs/results/claims.yaml`. No figure of ours is typed: each is
looked up in a data file of that folder. `--check` writes nothing and ends with 1 where the page or a
phrase of README differs.
"""

import argparse
import csv
import decimal
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.json_files import read_json

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results"
REDUCTIONS: dict[str, Callable[[list[Decimal]], Decimal]] = {
    "mean": statistics.mean,
    "min": min,
    "max": max,
}
PREFACE = """\
# Results

Written by `python -m studies.claims` from [claims.yaml](claims.yaml) and the data files beside it; each page has commands, seeds
and dates. Figures are means over the seeds that a page names: three for ADMIN on generated text, two for ADMIN, pre-LN
and post-LN at 60L-12L on real text, RealFormer, R-Drop and their combination, one elsewhere.

Hardware unless a page says otherwise: 2 virtual CPU cores, 24 GiB, no GPU; AMD EPYC or Intel Xeon, which data files
of trainings name. Software: Python 3.11, PyTorch 2.13.0 (CPU), fairseq 0.12.3 (`fairseq-fixed` or `ve-fairseq`,
[the same code](../install.md) where translation is concerned).

`bash scripts/reproduce.sh NAME --corpus DIR` runs a short form of a study (depth, realformer, rdrop, heads, compose, speed) on your corpus;
[studies](../../studies/README.md) and [benchmarks](../../benchmarks/README.md) list what was run for these pages. The commands at the
head of a page record what was run on the date given; unlike those of the guide they are not run by the tests. `ADMIN_NMT_MULTI30K` in them is
the folder with Multi30k's archives ([data](../data.md)).

"""
APPENDIX = """
Also measured: [six residual schemes at three depths on real text](depth.md), [BPE-dropout](bpe-dropout.md) (no gain),
[minimum Bayes risk](mbr.md), [data preparation: speed](preparation-speed.md)
and [memory](preparation-memory.md), [a training step](step-speed.md), [a first run on Multi30k](multi30k.md),
[kills at random moments](random-kills.md), [faults of one rank](rank-faults.md).
"""


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a CSV file, or of the list `models` of a JSON file."""
    if path.suffix == ".json":
        return read_json(path)["models"]
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def agrees(row: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a row has these values; numbers are compared as numbers."""

    def same(value: Any, wanted: Any) -> bool:
        if isinstance(wanted, int | float):
            return value not in ("", None) and float(value) == wanted
        return value == wanted

    return all(same(row[column], wanted) for column, wanted in where.items())


def look_up(figure: Mapping[str, Any], folder: Path = RESULTS) -> Decimal:
    """One figure out of its data file, as the head of claims.yaml describes; digits stay as written.

    Raises:
        UserError: no row fits, or the file has no such column.
    """
    rows = read_rows(folder / figure["file"])
    reduce = REDUCTIONS[figure.get("take", "mean")]

    def reduced(where: Mapping[str, Any]) -> Decimal:
        try:
            values = [row[figure["column"]] for row in rows if agrees(row, where)]
        except KeyError as error:
            raise UserError(f"{figure['file']}: no column {error}") from None
        if not values:
            raise UserError(f"{figure['file']}: no row with {dict(where)}")
        return reduce([Decimal(str(value)) for value in values])

    found = reduced(figure.get("where", {}))
    if "minus" in figure:
        return found - reduced(figure["minus"])
    return found / reduced(figure["over"]) if "over" in figure else found


def figures(document: Mapping[str, Any], folder: Path = RESULTS) -> dict[str, Decimal]:
    """Name -> value of all figures."""
    return {name: look_up(figure, folder) for name, figure in document["figures"].items()}


def filled(template: str, values: Mapping[str, Decimal]) -> str:
    """A template with its figures, 31.805 as 31.81: tables made by hand round so too."""
    with decimal.localcontext(rounding=decimal.ROUND_HALF_UP):
        return template.format_map(values)


def front_page(document: Mapping[str, Any], values: Mapping[str, Decimal]) -> str:
    """The Markdown of the front page."""
    rows = [
        {
            "claim": claim["claim"], "paper": claim["paper"],
            "ours": filled(claim["ours"], values), "verdict": claim["verdict"],
            "page": f"[{Path(claim['page']).stem}]({claim['page']})",
        }
        for claim in document["claims"]
    ]  # fmt: skip
    table = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
    # One space of padding: a changed cell then changes one line.
    return PREFACE + re.sub(r" {2,}", " ", re.sub(r":?-{3,}:?", "---", table)) + "\n" + APPENDIX


def missing_from(
    readme: str, document: Mapping[str, Any], values: Mapping[str, Decimal]
) -> list[str]:
    """The phrases, figures filled in, that do not stand in `readme`."""
    phrases = [filled(phrase, values) for phrase in document["readme"]]
    return [phrase for phrase in phrases if phrase not in readme]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it and README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1: something differs")
    args = parser.parse_args(arguments)
    document = yaml.safe_load((RESULTS / "claims.yaml").read_text(encoding="utf-8"))
    page = RESULTS / "index.md"
    try:
        values = figures(document)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = front_page(document, values)
    if not args.check:
        with atomic_write(page) as stream:
            stream.write(text)
        return 0
    problems = [
        f"README.md lacks: {phrase}"
        for phrase in missing_from(
            (REPOSITORY / "README.md").read_text(encoding="utf-8"), document, values
        )
    ]
    if page.read_text(encoding="utf-8") != text:
        problems.append("docs/results/index.md is old: python -m studies.claims")
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
