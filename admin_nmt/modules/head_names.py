"""Names and numbers of attention heads, without any tensor.

A head is called `KIND:LAYER:HEAD`, counted from 1, as in the code of Michel et al. (2019,
arXiv 1905.10650): `E` is encoder self-attention, `A` encoder-decoder attention, `D` decoder
self-attention. A layout says how many heads each layer has: `E:8,7,0 A:8,8 D:8,8`.

With residual attention a head may have queries and keys, which layers above need, and no values.
Then the layout gives the number of heads with queries and keys and, in parentheses, which of them
(from 1) have values: `E:4(1.3.4),2`. Only those are heads by name: `E:1:2` is the third of the four.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from admin_nmt.errors import UsageError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS

#: Letter -> what it stands for, in the order in which kinds are listed everywhere.
KINDS = {letter: kind.title for letter, kind in ATTENTION_KINDS.items()}

#: Kind -> number of heads of each layer, first layer first.
Layout = Mapping[str, Sequence[int]]


class Head(NamedTuple):
    """One attention head; `layer` and `head` count from 1."""

    kind: str
    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.layer}:{self.head}"


@dataclass(frozen=True)
class LayerHeads:
    """Heads of one layer.

    Attributes:
        scores: how many have queries and keys.
        values: which of them (from 0, ascending) have values; those are the heads that are named.
    """

    scores: int
    values: tuple[int, ...]

    @classmethod
    def whole(cls, count: int) -> "LayerHeads":
        """`count` heads that lack nothing."""
        return cls(count, tuple(range(count)))

    def __str__(self) -> str:
        if self == LayerHeads.whole(self.scores):
            return str(self.scores)
        return f"{self.scores}({'.'.join(str(value + 1) for value in self.values)})"


NO_HEADS = LayerHeads(0, ())


def parse_heads(text: str, option: str = "--heads") -> list[Head]:
    """The heads of a list such as `E:3:1,A:1:2`; a bare number goes on in the same layer
    (`E:3:1,4` is heads 1 and 4).

    Examples:
        >>> [str(head) for head in parse_heads("E:3:1,4 A:1:2")]
        ['E:3:1', 'E:3:4', 'A:1:2']

    Raises:
        UsageError: a part does not name a head, or a head is named twice; the message names `option`.
    """
    heads: list[Head] = []
    for part in re.split(r"[,\s]+", text.strip()):
        full = re.fullmatch(r"([EAD]):(\d+):(\d+)", part)
        if full:
            head = Head(full[1], int(full[2]), int(full[3]))
        elif re.fullmatch(r"\d+", part) and heads:
            head = Head(heads[-1].kind, heads[-1].layer, int(part))
        else:
            raise UsageError(
                f"{option}: '{part}' is not a head; write KIND:LAYER:HEAD counted from 1, such as "
                "E:3:1 (E encoder self-, D decoder self-, A encoder-decoder attention)"
            )
        if head in heads:
            raise UsageError(f"{option}: head {head} is named twice")
        heads.append(head)
    return heads


def all_heads(layout: Layout) -> Iterator[Head]:
    """Every head of a model, kind by kind, layer by layer.

    Examples:
        >>> [str(head) for head in all_heads({"E": (2, 1)})]
        ['E:1:1', 'E:1:2', 'E:2:1']
    """
    for kind in KINDS:
        for layer, count in enumerate(layout.get(kind, ()), 1):
            for head in range(1, count + 1):
                yield Head(kind, layer, head)


def require_heads(heads: Iterable[Head], layout: Layout, option: str = "--heads") -> None:
    """Refuse heads that the model does not have.

    Raises:
        UsageError: naming the first such head and what the model has instead.
    """
    for head in heads:
        counts = layout.get(head.kind, ())
        if not 1 <= head.layer <= len(counts):
            raise UsageError(
                f"{option}: head {head} does not exist: the model has {len(counts)} layers of "
                f"{KINDS[head.kind]}"
            )
        if not 1 <= head.head <= counts[head.layer - 1]:
            raise UsageError(
                f"{option}: head {head} does not exist: that layer has {counts[head.layer - 1]} "
                "heads"
            )


def without(layout: Layout, removed: Iterable[Head]) -> dict[str, tuple[int, ...]]:
    """The layout after the heads `removed` are gone.

    Examples:
        >>> without({"E": (8, 8)}, [Head("E", 2, 1), Head("E", 2, 5)])
        {'E': (8, 6)}
    """
    counts = {kind: list(layers) for kind, layers in layout.items()}
    for head in set(removed):
        counts[head.kind][head.layer - 1] -= 1
    return {kind: tuple(layers) for kind, layers in counts.items()}


def format_layout(layout: Mapping[str, Sequence[int | LayerHeads]]) -> str:
    """`E:8,7,0 A:8,8 D:8,8`; kinds that the model lacks are left out.

    Examples:
        >>> format_layout({"E": (8, 7, 0), "D": (8, 8)})
        'E:8,7,0 D:8,8'
    """
    return " ".join(
        f"{kind}:{','.join(map(str, layout[kind]))}" for kind in KINDS if layout.get(kind)
    )


_LAYER = r"\d+(?:\((?:\d+(?:\.\d+)*)?\))?"


def parse_layout(text: str) -> dict[str, tuple[LayerHeads, ...]]:
    """The inverse of `format_layout`.

    Examples:
        >>> parse_layout("E:4(1.3),2")["E"]
        (LayerHeads(scores=4, values=(0, 2)), LayerHeads(scores=2, values=(0, 1)))

    Raises:
        UsageError: another form; the message names `--heads-per-layer`.
    """
    layout: dict[str, tuple[LayerHeads, ...]] = {}
    for part in text.split():
        match = re.fullmatch(rf"([EAD]):({_LAYER}(?:,{_LAYER})*)", part)
        if not match or match[1] in layout:
            raise UsageError(
                f"--heads-per-layer: '{part}' is not a head count per layer such as E:8,7,0; "
                "write 'E:8,7,0 A:8,8 D:8,8'"
            )
        layout[match[1]] = tuple(_layer(layer) for layer in match[2].split(","))
    return layout


def _layer(text: str) -> LayerHeads:
    """`8`, or `4(1.3)`."""
    count, bracket, values = text.rstrip(")").partition("(")
    if not bracket:
        return LayerHeads.whole(int(count))
    heads = LayerHeads(int(count), tuple(int(n) - 1 for n in values.split(".") if n))
    if list(heads.values) != sorted({n for n in heads.values if 0 <= n < heads.scores}):
        raise UsageError(
            f"--heads-per-layer: {text} must name some of its {count} heads in ascending order"
        )
    return heads
