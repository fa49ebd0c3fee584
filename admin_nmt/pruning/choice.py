"""Which heads `admin-nmt prune` removes, by its options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from admin_nmt.errors import UsageError
from admin_nmt.models.head_files import read_heads
from admin_nmt.models.heads import aligned_heads
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.head_names import Head, require_heads
from admin_nmt.pruning import policies
from admin_nmt.pruning.loading import LoadedModel
from admin_nmt.pruning.records import Measurement, load_measurements, measurement_of
from admin_nmt.pruning.removal import masked_heads


@dataclass(frozen=True)
class Choice:
    """One of three ways to choose heads: `heads`, `fraction` or `fractions`.

    Attributes:
        heads: just these: a list such as `E:3:1,A:1:2`, or a file of them.
        fraction: share of all heads, ranked together.
        fractions: kind -> share of its heads.
        protect_cross: with `fraction`, none of encoder-decoder attention.
        uniform: the same number of heads in each layer of a kind; shares are then of each layer.
        min_heads: number of heads that every layer keeps.
        importance: file of scores by which heads go; without one they are measured.
        normalize: key of `NORMALIZATIONS`, by which scores of all layers and kinds are compared.
        random: heads go in random order.
        seed: of the random order.

    Raises:
        UsageError: no way, or two, or options that exclude each other.
    """

    heads: str | None = None
    fraction: float | None = None
    fractions: Mapping[str, float] = field(default_factory=dict)
    protect_cross: bool = False
    uniform: bool = False
    min_heads: int = 0
    importance: str | None = None
    normalize: str = "layer"
    random: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        given = ["--fraction"] * (self.fraction is not None)
        given += [ATTENTION_KINDS[kind].budget_option for kind in self.fractions][:1]
        given += ["--heads"] * (self.heads is not None)
        if not given:
            raise UsageError(
                "say which heads: --fraction, --encoder-self / --decoder-self / --cross, or --heads"
            )
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} exclude each other")
        if self.protect_cross and self.fraction is None:
            raise UsageError("--protect-cross needs --fraction")
        if self.importance and self.random:
            raise UsageError("--importance and --random exclude each other")
        if self.heads is not None:
            for option in ("uniform", "random", "importance"):
                if getattr(self, option):
                    raise UsageError(f"--heads and --{option} exclude each other")


def choose_heads(
    choice: Choice, loaded: LoadedModel, measure: Callable[[LoadedModel], Measurement]
) -> set[Head]:
    """The heads that go, and those that the model masks by itself: they count as the first ones of
    any order.

    Args:
        choice: how to choose.
        loaded: the model.
        measure: importance of its heads; called only if their order depends on it.

    Raises:
        UsageError: heads that the model does not have, or a choice that cannot be met.
        UserError: a file of heads or scores cannot be used.
    """
    layout, masked = loaded.layout, masked_heads(loaded)
    if choice.heads is not None:
        heads = set(read_heads(choice.heads, "--heads"))
        require_heads(heads, layout)
        heads |= masked
        policies.require_min_heads(heads, layout, choice.min_heads)
        return heads
    # Budgets that cannot be met are found before anything is measured.
    _first_of(policies.random_order(layout, 0), choice, loaded)
    return _first_of(_order(choice, loaded, measure), choice, loaded)


def _first_of(order: Sequence[Head], choice: Choice, loaded: LoadedModel) -> set[Head]:
    """The first heads of an order that the budgets allow, masked ones before all others, and none that
    is trained to align words."""
    layout, masked = loaded.layout, masked_heads(loaded)
    fractions = choice.fractions
    policies.require_kinds(fractions, layout)
    origin = None
    if choice.fraction is None:
        budgets = policies.kind_budgets(layout, fractions)
    else:
        budgets = policies.global_budget(layout, choice.fraction, choice.protect_cross)
        fractions = dict.fromkeys(budgets[0].kinds, choice.fraction)
        origin = budgets[0].origin
    stay = aligned_heads(loaded.model.cfg)
    order = sorted(
        (head for head in order if head not in stay), key=lambda head: head not in masked
    )
    if choice.uniform:
        heads = policies.choose_uniform(order, layout, fractions, choice.min_heads, origin)
    else:
        heads = policies.choose(order, layout, budgets, choice.min_heads)
    if not masked <= heads:
        heads |= masked
        mask = "the mask of the checkpoint"
        policies.require_min_heads(heads, layout, choice.min_heads, mask)
        if choice.uniform:
            policies.require_uniform(heads, layout, fractions, mask)
    return heads


def _order(
    choice: Choice, loaded: LoadedModel, measure: Callable[[LoadedModel], Measurement]
) -> list[Head]:
    """All heads, the first to go first."""
    if choice.random:
        return policies.random_order(loaded.layout, choice.seed)
    if choice.importance:
        measurements = load_measurements(choice.importance)
        return measurement_of(
            measurements, loaded.fingerprint, loaded.path, choice.importance
        ).order(choice.normalize)
    return measure(loaded).order(choice.normalize)
