"""Advice on the warm-up of deep encoders under profiled ADMIN.

Profiled ADMIN starts with small omegas in its first layers: at 60 layers about 3 % of the encoder's
output differs by position (`analysis.collapse`), against 43 % for O(log n). A learning rate that
rises too fast removes the rest before attention has learnt to use it, and training stays at a
language model's loss. The published runs (arXiv 2008.07772) therefore warm up for 8,000 updates.
"""

#: Encoder layers beyond which the warm-up matters: 18L-6L trained with 200 updates of it.
DEEP = 18
#: Warm-up of the published recipes for deep models, and the fraction of it that is still near.
RECIPE_UPDATES, NEAR = 8000, 1 / 4


def warm_up_advice(encoder_layers: int, warmup_updates: int | None) -> str | None:
    """One line where a deep encoder's warm-up is far shorter than the recipes', else None.

    Args:
        encoder_layers: of the model.
        warmup_updates: of the learning rate; None where the scheduler has no such setting.
    """
    if encoder_layers <= DEEP or warmup_updates is None or warmup_updates >= NEAR * RECIPE_UPDATES:
        return None
    return (
        f"{encoder_layers} encoder layers with --warmup-updates {warmup_updates}: the published "
        f"runs warm up for {RECIPE_UPDATES}. If the loss stays at a language model's, warm up "
        "longer, lower --lr, or take --init-type admin-log"
    )
