"""Advice on the warm-up of deep encoders under profiled ADMIN.

Profiled ADMIN starts with small omegas in its first layers: at 60 layers about 3 % of the encoder's
output differs by position (`analysis.collapse`), against 43 % for O(log n). A learning rate that
rises too fast removes the rest before attention has learnt to use it, and training stays at a
language model's loss. On Multi30k a rise of 3e-7 an update trains at 60L-12L and one of 1e-6 does not
(docs/results/depth.md); the published runs (arXiv 2008.07772) rise by 1.3e-7 over 8,000 updates.
"""

import math

#: Encoder layers beyond which the warm-up matters: 18L-6L trained with 200 updates of it.
DEEP = 18
#: Rise of the learning rate in one update that is known to train 60L-12L, and half of the one that is
#: known to fail.
SAFE_RISE, STEEP_RISE = 3e-7, 5e-7


def warm_up_advice(
    encoder_layers: int, peak_lr: float, warmup_updates: int | None, warmup_init_lr: float = 0.0
) -> str | None:
    """One line where the learning rate of a deep encoder rises steeply, else None.

    Args:
        encoder_layers: of the model.
        peak_lr: learning rate at the end of the warm-up.
        warmup_updates: of the learning rate; None where the scheduler has no such setting.
        warmup_init_lr: learning rate at the first update.
    """
    if encoder_layers <= DEEP or warmup_updates is None:
        return None
    rise = (peak_lr - max(0.0, warmup_init_lr)) / max(1, warmup_updates)
    if rise <= STEEP_RISE:
        return None
    return (
        f"{encoder_layers} encoder layers with --lr {peak_lr:g} and --warmup-updates {warmup_updates}: "
        f"the learning rate rises by {rise:.1e} an update. If the loss stays at a language model's, "
        f"give --warmup-updates {math.ceil(peak_lr / SAFE_RISE / 100) * 100} or more, a lower --lr, "
        "or --init-type admin-log"
    )
