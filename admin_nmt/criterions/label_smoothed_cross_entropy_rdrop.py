"""R-Drop (arXiv 2106.14448): `--criterion label_smoothed_cross_entropy_rdrop`.

The batch runs m times with different dropout masks, in one forward pass of m * B sentences, and the
divergence between the predicted distributions is added to the loss:

    loss = sum over passes of NLL(P_i) + alpha * mean over ordered pairs of KL(P_i || P_j)

with NLL label-smoothed and everything summed over target tokens (section 2.1 of the paper; m = 2
there). Layer drop is drawn once for all passes. Validation runs one pass. The logged loss, nll_loss
and ppl are per pass and token, so they compare with those of `label_smoothed_cross_entropy`.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import nn

from admin_nmt.criterions.label_smoothed_cross_entropy import (
    AdminLabelSmoothedCrossEntropyConfig,
    AdminLabelSmoothedCrossEntropyCriterion,
    Plan,
)
from admin_nmt.errors import UsageError
from admin_nmt.option_names import plain_value

logger = logging.getLogger(__name__)


@dataclass
class RDropConfig(AdminLabelSmoothedCrossEntropyConfig):
    """Options of label smoothing and of R-Drop."""

    rdrop_alpha: float = field(
        default=5.0,
        metadata={
            "help": "weight of the KL term (5 for translation in the paper; 1 to 5 on small data); "
            "0 turns R-Drop off"
        },
    )
    rdrop_interval: int = field(
        default=1,
        metadata={
            "help": "run R-Drop on every k-th update and a single pass on the others (k-step "
            "R-Drop: cheaper, and worse at the end)"
        },
    )
    rdrop_passes: int = field(
        default=2,
        metadata={
            "help": "forward passes of each batch, at least 2; they run as one batch of that many "
            "times the sentences, so divide --max-tokens by this number, and multiply "
            "--update-freq, to stay within the memory of a run without R-Drop"
        },
    )
    rdrop_loss_scale: ChoiceEnum(["sum", "mean"]) = field(  # type: ignore[valid-type]
        default="sum",
        metadata={
            "help": "sum the loss over the passes (the authors' scale: the gradient is about twice "
            "that of a plain run), or average it; the balance with the KL term is the same"
        },
    )


@register_criterion("label_smoothed_cross_entropy_rdrop", dataclass=RDropConfig)
class LabelSmoothedCrossEntropyRDropCriterion(AdminLabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy of several dropout passes plus their symmetric KL."""

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        label_smoothing_over: Any = "others",
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
        alignment_lambda: float = 0.05,
        rdrop_alpha: float = 5.0,
        rdrop_interval: int = 1,
        rdrop_passes: int = 2,
        rdrop_loss_scale: Any = "sum",
    ) -> None:
        super().__init__(
            task,
            sentence_avg,
            label_smoothing,
            label_smoothing_over,
            ignore_prefix_size,
            report_accuracy,
            alignment_lambda,
        )
        if not 0 <= rdrop_alpha < float("inf"):
            raise UsageError(f"--rdrop-alpha must be a number of at least 0, not {rdrop_alpha}")
        if rdrop_interval < 1:
            raise UsageError(f"--rdrop-interval must be at least 1, not {rdrop_interval}")
        if rdrop_passes < 2:
            raise UsageError(
                f"--rdrop-passes must be at least 2, not {rdrop_passes}; for one pass use "
                "--criterion admin_label_smoothed_cross_entropy"
            )
        self.alpha = rdrop_alpha
        self.interval = rdrop_interval
        self.passes = rdrop_passes
        self.average = plain_value(rdrop_loss_scale) == "mean"
        self.num_updates = 0
        self._dropout_checked = False

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the trainer: the updates made so far."""
        self.num_updates = num_updates

    def plan(self, model: Any) -> Plan:
        """Several passes in training, one outside.

        On updates without R-Drop (`--rdrop-interval`) one pass runs; under `--rdrop-loss-scale sum`
        its loss counts as often as there are passes otherwise, so that the size of the gradient does
        not jump from update to update. With alpha 0 all updates are those of label smoothing.
        """
        if not model.training or self.alpha == 0:
            return super().plan(model)
        self._check_dropout(model)
        scale = 1.0 if self.average else float(self.passes)
        if self.num_updates % self.interval:
            return Plan(1, 0.0, scale)
        return Plan(self.passes, self.alpha, scale / self.passes, "rdrop_kl")

    def _check_dropout(self, model: nn.Module) -> None:
        """Warn once when all passes would be the same."""
        if self._dropout_checked:
            return
        self._dropout_checked = True
        # A stack with layer drop has a `p` too, but drops the same layers in all passes.
        modules = (m for m in model.modules() if not isinstance(m, nn.ModuleList))
        rates = (getattr(module, "p", 0.0) for module in modules)
        if not any(isinstance(rate, float) and rate > 0 for rate in rates):
            logger.warning(
                "every dropout of the model is 0: all passes are the same and R-Drop does nothing "
                "but cost time; set --dropout"
            )
