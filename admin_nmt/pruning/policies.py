"""Which heads to remove: pure functions from an order of heads to a set of heads.

The order (least important first, or random as a control) is walked once; a head goes if its
budget is not used up and its layer keeps enough heads.
"""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from admin_nmt.errors import UsageError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.head_names import KINDS, Head, Layout, all_heads, without


@dataclass(frozen=True)
class Budget:
    """How many heads to take from which kinds, together.

    Attributes:
        kinds: letters of `KINDS`.
        count: number of heads to remove.
        origin: the option and its value, for messages.
    """

    kinds: str
    count: int
    origin: str


def num_to_remove(fraction: float, total: int) -> int:
    """`ceil(fraction * total)`, as in the authors' code, safe from rounding.

    Examples:
        >>> num_to_remove(0.3, 10), num_to_remove(0.25, 10)
        (3, 3)
    """
    return math.ceil(round(fraction * total, 9))


def require_fraction(fraction: float, option: str) -> float:
    """`fraction`, if it lies in 0..1.

    Raises:
        UsageError: naming `option`.
    """
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(f"{option} {fraction:g}: give a fraction of heads between 0 and 1")
    return fraction


def global_budget(layout: Layout, fraction: float, protect_cross: bool = False) -> list[Budget]:
    """One budget for all kinds: `fraction` of all heads of the model, none of them of
    encoder-decoder attention with `protect_cross`."""
    require_fraction(fraction, "--fraction")
    kinds = "".join(kind for kind in KINDS if not (protect_cross and kind == "A"))
    total = sum(sum(counts) for counts in layout.values())
    origin = f"--fraction {fraction:g}" + " --protect-cross" * protect_cross
    return [Budget(kinds, num_to_remove(fraction, total), origin)]


def kind_budgets(layout: Layout, fractions: Mapping[str, float]) -> list[Budget]:
    """A budget for each kind in `fractions` (kind -> fraction of the heads of that kind)."""
    return [
        Budget(
            kind,
            num_to_remove(
                require_fraction(fraction, ATTENTION_KINDS[kind].budget_option),
                sum(layout.get(kind, ())),
            ),
            f"{ATTENTION_KINDS[kind].budget_option} {fraction:g}",
        )
        for kind, fraction in fractions.items()
    ]


def choose(
    order: Sequence[Head], layout: Layout, budgets: Sequence[Budget], min_heads: int = 0
) -> set[Head]:
    """The first heads of `order` that the budgets and `min_heads` allow.

    Args:
        order: heads of the model, the first to go first.
        layout: head counts of the model.
        budgets: of disjoint kinds; they are met exactly.
        min_heads: number of heads that every layer keeps at least (all, if it has fewer).

    Examples:
        >>> layout = {"E": (2, 2)}
        >>> order = list(all_heads(layout))
        >>> sorted(map(str, choose(order, layout, global_budget(layout, 0.5), min_heads=1)))
        ['E:1:1', 'E:2:1']

    Raises:
        UsageError: a budget cannot be met.
    """
    _require_not_negative(min_heads)
    removed: set[Head] = set()
    for budget in budgets:
        left = {kind: list(layout.get(kind, ())) for kind in budget.kinds}
        chosen: list[Head] = []
        for head in order:
            if len(chosen) == budget.count:
                break
            if head.kind in left and left[head.kind][head.layer - 1] > min_heads:
                left[head.kind][head.layer - 1] -= 1
                chosen.append(head)
        if len(chosen) < budget.count:
            raise UsageError(
                f"{budget.origin}: {budget.count} heads cannot be removed; with --min-heads "
                f"{min_heads} at most {len(chosen)} can"
            )
        removed.update(chosen)
    return removed


def _require_not_negative(min_heads: int) -> None:
    if min_heads < 0:
        raise UsageError(f"--min-heads {min_heads}: give a number of at least 0")


def choose_uniform(
    order: Sequence[Head],
    layout: Layout,
    fractions: Mapping[str, float],
    min_heads: int = 0,
    origin: str | None = None,
) -> set[Head]:
    """Heads whose removal leaves the same number in every layer of a kind.

    Every layer keeps `floor((1 - fraction) * H)` heads, H being the largest count of the kind, but
    no more than the layer with the fewest has.

    Args: as for `choose`, and
        order: without the heads that have to stay.
        fractions: kind -> fraction of heads to remove.
        origin: the option that all fractions are from and its value, for messages; None for the option
            of each kind.

    Raises:
        UsageError: a fraction outside 0..1, fewer than `min_heads` heads would be kept, or more heads
            of a layer have to stay.
    """
    _require_not_negative(min_heads)
    removed: set[Head] = set()
    for kind, fraction in fractions.items():
        counts = layout.get(kind, ())
        if not counts:
            continue
        option = ATTENTION_KINDS[kind].budget_option
        said = origin or f"{option} {fraction:g}"
        largest = max(counts)
        keep = largest - num_to_remove(require_fraction(fraction, option), largest)
        keep = min(keep, *counts)
        if keep < min_heads:
            raise UsageError(
                f"--uniform with {said} leaves {keep} heads in a layer of {KINDS[kind]}; "
                f"--min-heads {min_heads} forbids that"
            )
        for layer, count in enumerate(counts, 1):
            candidates = [head for head in order if head.kind == kind and head.layer == layer]
            if len(candidates) < count - keep:
                raise UsageError(
                    f"--uniform with {said} leaves {keep} heads in each layer of "
                    f"{KINDS[kind]}, but {count - len(candidates)} of layer {layer} have to stay, which "
                    "are trained to align words; give a smaller fraction, or no --uniform"
                )
            removed.update(candidates[: count - keep])
    return removed


def random_order(layout: Layout, seed: int) -> list[Head]:
    """All heads in an order that depends on `seed` alone: the control of the experiments."""
    heads = list(all_heads(layout))
    random.Random(seed).shuffle(heads)
    return heads


def require_kinds(kinds: Collection[str], layout: Layout) -> None:
    """Refuse a fraction of the heads of a kind of attention that the model does not have.

    Raises:
        UsageError: naming the option.
    """
    for kind in kinds:
        if kind not in layout:
            raise UsageError(
                f"{ATTENTION_KINDS[kind].budget_option}: the model has no {KINDS[kind]}"
            )


def require_uniform(
    removed: Collection[Head], layout: Layout, kinds: Collection[str], origin: str
) -> None:
    """Refuse heads whose removal leaves different numbers in the layers of one of the `kinds`.

    Raises:
        UsageError: naming `origin`, where they come from.
    """
    for kind, counts in without(layout, removed).items():
        if kind in kinds and len(set(counts)) > 1:
            raise UsageError(
                f"--uniform: {origin} leaves {', '.join(map(str, counts))} heads in the layers of "
                f"{KINDS[kind]}; give a larger fraction"
            )


def require_min_heads(
    removed: Collection[Head], layout: Layout, min_heads: int, origin: str = "--heads"
) -> None:
    """Refuse a choice that leaves a layer with fewer than `min_heads` heads.

    Raises:
        UsageError: naming the first such layer, and `origin`, where the choice comes from.
    """
    _require_not_negative(min_heads)
    after = without(layout, removed)
    for kind, counts in after.items():
        for layer, count in enumerate(counts, 1):
            if count < min(min_heads, layout[kind][layer - 1]):
                raise UsageError(
                    f"{origin} leaves {count} heads in layer {layer} of {KINDS[kind]}; "
                    f"--min-heads {min_heads} forbids that"
                )
