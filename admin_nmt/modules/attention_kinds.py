"""The three attentions of an encoder-decoder Transformer: one table of all their names."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

from admin_nmt.option_names import flag

Value = TypeVar("Value")


class AttentionKind(NamedTuple):
    """One kind of attention.

    Attributes:
        letter: in names of heads (`E:1:2`), as in the code of Michel et al. (arXiv 1905.10650).
        option: word of `--residual-attention`.
        budget: option of `admin-nmt prune` that gives its share, without dashes.
        stack: where its layers are, and its queries.
        attribute: of a layer.
        scores: argument of a layer that carries its scores from the layer below.
        short: its name in narrow places.
        title: its full name.
    """

    letter: str
    option: str
    budget: str
    stack: Literal["encoder", "decoder"]
    attribute: str
    scores: str
    short: str
    title: str

    @property
    def budget_option(self) -> str:
        """As on the command line: `--encoder-self`."""
        return flag(self.budget)


#: Letter -> kind, in the order in which they are listed everywhere.
ATTENTION_KINDS: Mapping[str, AttentionKind] = {
    kind.letter: kind
    for kind in (
        AttentionKind(
            "E", "encoder", "encoder_self", "encoder", "self_attn", "self_scores",
            "encoder self", "encoder self-attention",
        ),
        AttentionKind(
            "A", "cross", "cross", "decoder", "encoder_attn", "cross_scores",
            "encoder-decoder", "encoder-decoder attention",
        ),
        AttentionKind(
            "D", "decoder", "decoder_self", "decoder", "self_attn", "self_scores",
            "decoder self", "decoder self-attention",
        ),
    )
}  # fmt: skip


def by_queries(source: Value, target: Value) -> dict[str, Value]:
    """Letter -> `source` for attention whose queries are source tokens, else `target`."""
    return {
        letter: source if kind.stack == "encoder" else target
        for letter, kind in ATTENTION_KINDS.items()
    }
