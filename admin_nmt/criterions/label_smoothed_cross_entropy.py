"""Label-smoothed cross-entropy without logits: `--criterion admin_label_smoothed_cross_entropy`.

The same loss as fairseq's `label_smoothed_cross_entropy`, computed by `admin_nmt.ops.linear_loss`. The
criterions of R-Drop and of distillation are subclasses.
"""

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from torch import Tensor, nn

from admin_nmt.criterions.batch import by_pass, repeat_batch
from admin_nmt.criterions.output_layer import (
    decoder_of,
    linear_output_layer,
    log_probabilities,
    replaced_output_layer,
)
from admin_nmt.errors import UsageError, UserError
from admin_nmt.ops.alignment import guided_alignment_loss
from admin_nmt.ops.label_smoothing import CONVENTIONS, LabelSmoothing
from admin_nmt.ops.linear_loss import linear_rdrop
from admin_nmt.ops.rdrop import LossSums, rdrop_loss
from admin_nmt.option_names import plain_value

logger = logging.getLogger(__name__)


#: In the log, each with the tokens over which it was measured: the divergence between R-Drop's passes,
#: that of the student from its teacher, and what guides alignments.
MEASURED = ("rdrop_kl", "teacher_kl", "alignment_loss")


class Plan(NamedTuple):
    """How the loss of one batch is made.

    Attributes:
        passes: m, forward passes at once.
        alpha: weight of the divergence between them.
        scale: factor of the loss of all passes together.
        divergence: name in the log of the divergence that is part of the loss, if one is.
    """

    passes: int
    alpha: float
    scale: float
    divergence: str | None = None


class OutputLayer(NamedTuple):
    """Weight (V, D) and bias (V,) or None of a linear output layer."""

    weight: Tensor
    bias: Tensor | None


@dataclass
class AdminLabelSmoothedCrossEntropyConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """fairseq's options, plus the convention of label smoothing."""

    label_smoothing_over: ChoiceEnum(list(CONVENTIONS)) = field(  # type: ignore[valid-type]
        default="others",
        metadata={
            "help": "types that share the mass of label smoothing: others (epsilon/(V-1) for every type "
            "but the true one, as in fairseq) or all (epsilon/V for every type, as in the paper "
            "and in R-Drop's own code)"
        },
    )
    alignment_lambda: float = field(
        default=0.05,
        metadata={
            "help": "weight of the loss that pulls the attention of --alignment-layer to the word "
            "alignments of the data, with --load-alignments"
        },
    )


@register_criterion(
    "admin_label_smoothed_cross_entropy", dataclass=AdminLabelSmoothedCrossEntropyConfig
)
class AdminLabelSmoothedCrossEntropyCriterion(FairseqCriterion):
    """Loss of a sequence-to-sequence model or a language model, summed over tokens.

    Where the model's output layer is not one matrix product (adaptive softmax, for example) the
    plain path is taken, with a line in the log.

    Attributes:
        recordable: `figures` never waits for the GPU, so that `--cuda-graphs` can record it.
        guided: attention is trained on the word alignments of the data (`--load-alignments`).
    """

    recordable = True

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        label_smoothing_over: Any = "others",
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
        alignment_lambda: float = 0.05,
    ) -> None:
        super().__init__(task)
        if not 0 <= label_smoothing < 1:
            raise UsageError(
                f"--label-smoothing must be at least 0 and below 1, not {label_smoothing}"
            )
        if ignore_prefix_size < 0:
            raise UsageError(f"--ignore-prefix-size must be at least 0, not {ignore_prefix_size}")
        self.sentence_avg = sentence_avg
        self.epsilon = label_smoothing
        self.over = str(plain_value(label_smoothing_over))
        self.ignore_prefix_size = ignore_prefix_size
        self.report_accuracy = report_accuracy
        if not 0 <= alignment_lambda < float("inf"):
            raise UsageError(
                f"--alignment-lambda must be a number of at least 0, not {alignment_lambda}"
            )
        self.alignment_lambda = alignment_lambda
        self.guided = bool(getattr(getattr(task, "cfg", None), "load_alignments", False))
        self._decoder: Any = None
        self._output: nn.Module | None = None

    def check_model(self, model: Any) -> None:
        """Called by the trainer before training: refuse a model that this loss cannot serve.

        Raises:
            UsageError: the model has no decoder, or no attention to train on the alignments of the data.
            UserError: the data have no alignments.
        """
        decoder_of(model)
        layer = getattr(model, "alignment_layer", None)
        if self.guided and layer is None:
            raise UsageError(
                "--load-alignments needs --alignment-layer N: the layer of the decoder, from 0, whose "
                "attention is to align words"
            )
        if self.guided:
            _require_alignments(self.task.cfg)
        if layer is not None and not self.guided:
            logger.warning(
                "--alignment-layer without --load-alignments: no attention is trained to align words"
            )

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss of one batch.

        Args:
            model: a fairseq model with a decoder.
            sample: fairseq's batch; never changed.
            reduce: sum the loss over tokens; else return it per token, (B * T,), 0 at padding; T without
                `ignore_prefix_size`.

        Returns:
            the loss, the sample size (what the gradient is divided by), and the log.

        Raises:
            UsageError: the model has no decoder.
        """
        plan = self.plan(model)
        return self.result(sample, self.figures(model, sample, plan, reduce), plan)

    def plan(self, model: Any) -> Plan:
        """What `model` computes now: one pass."""
        return Plan(passes=1, alpha=0.0, scale=1.0)

    def figures(
        self, model: Any, sample: dict[str, Any], plan: Plan, reduce: bool = True
    ) -> dict[str, Tensor]:
        """All that is computed of a batch, on its device: what can be recorded and replayed
        (`--cuda-graphs`) for another batch of the same shapes.

        Args:
            sample: fairseq's batch, of which only tensors are read; never changed.
            plan: passes of the batch, and how their loss is made.
            reduce: as for `forward`.

        Returns:
            `objective`, whose gradient is wanted, and the figures of the log. Losses and counts are
            per pass, so that they are those of label_smoothed_cross_entropy.
        """
        target = model.get_targets(sample, None)
        self._find_output_layer(model)
        if self._output is None or not reduce:
            sums, output = self._plain(model, sample, target, plan.passes, plan.alpha, reduce)
        else:
            sums, output = self._fused(model, sample, target, plan.passes, plan.alpha)
        objective = sums.loss
        alignment = self._alignment_loss(sample, output, plan.passes) if self.guided else None
        if alignment is not None and reduce:
            objective = objective + self.alignment_lambda * alignment
        found = {
            "objective": objective * plan.scale,
            "loss": sums.loss.detach().sum() / plan.passes,
            "nll_loss": sums.nll.sum() / plan.passes,
        }
        if alignment is not None:
            found["alignment_loss"] = alignment.detach() / plan.passes
        if plan.divergence:
            found[plan.divergence] = sums.kl.sum()
        if self.report_accuracy:
            assert sums.correct is not None
            found["n_correct"] = sums.correct.sum() / plan.passes
            found["total"] = target[:, self.ignore_prefix_size :].ne(self.padding_idx).sum()
        return found

    def result(
        self, sample: dict[str, Any], figures: dict[str, Tensor], plan: Plan
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """What `forward` returns, from `figures` and the numbers that the host knows of the batch."""
        sentences = sample["target"].size(0)
        sample_size = sentences if self.sentence_avg else sample["ntokens"]
        log: dict[str, Any] = {n: value for n, value in figures.items() if n != "objective"}
        log |= {
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        if plan.divergence:
            log[f"{plan.divergence}_ntokens"] = sample["ntokens"]
        if self.guided:
            log["alignment_loss_ntokens"] = sample["ntokens"] if _has_links(sample) else 0
        return figures["objective"], sample_size, log

    def _find_output_layer(self, model: Any) -> None:
        """Find the linear output layer once per model."""
        decoder = decoder_of(model)
        if decoder is self._decoder:
            return
        # Not registered as submodules: their parameters are the model's.
        self.__dict__["_decoder"] = decoder
        self.__dict__["_output"] = linear_output_layer(decoder)
        if self._output is None:
            self._warn_of_logits()

    def _warn_of_logits(self) -> None:
        logger.warning(
            "the output layer of %s is not a linear map of its features: the loss is computed "
            "from all logits, which is slower and takes more memory",
            type(self._decoder).__name__,
        )

    def _smoothing(self, num_types: int) -> LabelSmoothing:
        return LabelSmoothing.of(self.epsilon, num_types, self.over)

    def _fused(
        self, model: Any, sample: dict[str, Any], target: Tensor, passes: int, alpha: float
    ) -> tuple[LossSums, Any]:
        """Features to loss inside the decoder, without logits; and what the model returned."""
        sums: list[LossSums] = []
        prefix = self.ignore_prefix_size

        def loss_of(features: Tensor) -> Tensor:
            assert self._output is not None
            features = by_pass(features, passes)[:, :, prefix:]
            weight: Any = self._output.weight
            bias: Any = getattr(self._output, "bias", None)
            layer = OutputLayer(weight, bias)
            sums.append(self.of_features(model, sample, features, layer, target[:, prefix:], alpha))
            return sums[0].loss

        with replaced_output_layer(self._decoder, loss_of):
            output = model(**repeat_batch(sample["net_input"], target.size(0), passes))
        if not sums or not torch.is_tensor(output[0]) or output[0].dim():
            # The decoder changes what its output layer returns: only the logits can tell the loss.
            self._warn_of_logits()
            self.__dict__["_output"] = None
            return self._plain(model, sample, target, passes, alpha, reduce=True)
        # The loss that went through the model and its wrappers: DDP hooks onto what it returns.
        return LossSums(output[0], sums[0].nll, sums[0].kl, sums[0].correct), output

    def _plain(
        self,
        model: Any,
        sample: dict[str, Any],
        target: Tensor,
        passes: int,
        alpha: float,
        reduce: bool,
    ) -> tuple[LossSums, Any]:
        """The loss from log-probabilities of all tokens; and what the model returned."""
        output = model(**repeat_batch(sample["net_input"], target.size(0), passes))
        lprobs = log_probabilities(model, output)
        prefix = self.ignore_prefix_size
        target = target[:, prefix:].reshape(-1)
        lprobs = by_pass(lprobs, passes)[:, :, prefix:].flatten(1, 2)
        return self.of_lprobs(model, sample, lprobs, target, alpha, reduce), output

    @staticmethod
    def _alignment_loss(sample: dict[str, Any], output: Any, passes: int) -> Tensor:
        """`guided_alignment_loss` of a batch, over all passes; 0 where it has no links."""
        weights = output[1]["attn"][0]
        if not _has_links(sample):
            return weights.new_zeros((), dtype=torch.float32)
        # (m, B * T, S), as the links of a batch count target places.
        weights = by_pass(weights, passes).flatten(1, 2)
        return guided_alignment_loss(weights, sample["alignments"], sample["align_weights"])

    def of_features(
        self,
        model: Any,
        sample: dict[str, Any],
        features: Tensor,
        layer: OutputLayer,
        target: Tensor,
        alpha: float,
    ) -> LossSums:
        """The loss from the decoder's features (m, B, T, D), target (B, T)."""
        return linear_rdrop(
            features, layer.weight, layer.bias, target, self._smoothing(len(layer.weight)), alpha,
            self.padding_idx, count_correct=self.report_accuracy,
        )  # fmt: skip

    def of_lprobs(
        self,
        model: Any,
        sample: dict[str, Any],
        lprobs: Tensor,
        target: Tensor,
        alpha: float,
        reduce: bool,
    ) -> LossSums:
        """The loss from log-probabilities (m, B * T, V), target (B * T,)."""
        smoothing = self._smoothing(lprobs.shape[-1])
        return rdrop_loss(
            lprobs, target, smoothing, alpha, self.padding_idx, reduce, self.report_accuracy
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Metrics of fairseq's criterion, plus those of `MEASURED` that there are, in bits per token."""
        LabelSmoothedCrossEntropyCriterion.reduce_metrics(logging_outputs)
        for name in MEASURED:
            tokens = utils.item(sum(log.get(f"{name}_ntokens", 0) for log in logging_outputs))
            if tokens > 0:
                kl = sum(log.get(name, 0) for log in logging_outputs)  # a tensor: nobody waits
                metrics.log_scalar(name, kl / tokens / math.log(2), tokens, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every figure is a sum."""
        return True


def _require_alignments(cfg: Any) -> None:
    """Refuse data without alignments of `--train-subset`, which fairseq reads as if nothing was asked.

    Raises:
        UserError: naming the folder.
    """
    subset = getattr(cfg, "train_subset", "train")
    name = f"{subset}.align.{cfg.source_lang}-{cfg.target_lang}.idx"
    folders = str(cfg.data).split(os.pathsep)
    if not any(Path(folder, name).is_file() for folder in folders):
        raise UserError(
            f"--load-alignments: {folders[0]} has no {name}; fairseq-preprocess --align-suffix writes it"
        )


def _has_links(sample: dict[str, Any]) -> bool:
    """Whether a batch has word alignments; sets without a file of them have none."""
    return sample.get("alignments") is not None
