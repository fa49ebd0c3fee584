"""Word-level distillation: `--criterion label_smoothed_cross_entropy_distillation --teacher FILE`.

A trained model says at every token of the reference what it would have predicted, and the student is
pulled towards that distribution (Kim & Rush 2016, arXiv 1606.07947, section 3.1):

    loss = (1 - weight) * NLL(P) + weight * T^2 * KL(Q_T || P_T)

with NLL label-smoothed and everything summed over target tokens; the mathematics is in
`admin_nmt.ops.distillation`. The teacher reads every batch without dropout and without gradients; the
logits of neither model are ever all in memory. Validation is that of the student alone, so its loss
and ppl compare with those of `label_smoothed_cross_entropy`.
"""

import logging
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from fairseq.criterions import register_criterion
from torch import Tensor, nn

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.checkpoints.direction import require_fitting_vocabulary
from admin_nmt.criterions.label_smoothed_cross_entropy import (
    AdminLabelSmoothedCrossEntropyConfig,
    AdminLabelSmoothedCrossEntropyCriterion,
    OutputLayer,
    Plan,
)
from admin_nmt.criterions.output_layer import linear_output_layer, log_probabilities
from admin_nmt.errors import UsageError, UserError
from admin_nmt.ops.distillation import Teacher, distillation_loss
from admin_nmt.ops.linear_loss import linear_distillation
from admin_nmt.ops.rdrop import LossSums

logger = logging.getLogger(__name__)


@dataclass
class DistillationConfig(AdminLabelSmoothedCrossEntropyConfig):
    """Options of label smoothing and of distillation."""

    teacher: str = field(
        default="",
        metadata={"help": "checkpoint of the teacher, any fairseq translation model of these data"},
    )
    distillation_weight: float = field(
        default=0.5,
        metadata={
            "help": "share of distillation in the loss, from 0 to 1; the rest is the "
            "label-smoothed likelihood of the reference"
        },
    )
    distillation_temperature: float = field(
        default=1.0,
        metadata={
            "help": "T by which the logits of both models are divided before they are compared; "
            "above 1 the teacher's less likely words count more"
        },
    )


class _TeacherModel(NamedTuple):
    """A teacher in evaluation mode and its output layer."""

    model: Any
    output: nn.Module


def load_teacher(path: str, task: Any) -> _TeacherModel:
    """The teacher in `path`, for the data of `task`.

    Raises:
        UserError: no such file, no checkpoint, or of another vocabulary.
        UsageError: it was trained in another direction, it has no linear output layer, or the task is no
            translation between two languages.
    """
    from fairseq import checkpoint_utils

    if getattr(task.cfg, "source_lang", None) is None:  # tasks without a dataclass have no `cfg`
        raise UsageError(
            f"--teacher {path}: distillation is for --task translation, not {type(task).__name__}"
        )
    data = str(task.cfg.data).split(os.pathsep)[0]
    languages = {"source_lang": task.cfg.source_lang, "target_lang": task.cfg.target_lang}
    checkpoint = Checkpoint.open(path)
    wanted = tuple(languages.values())
    if None not in checkpoint.languages and checkpoint.languages != wanted:
        # With a joint dictionary, or two of equal size, it would fit and teach nonsense.
        raise UsageError(
            f"--teacher {path} was trained to translate from {checkpoint.languages[0]} to "
            f"{checkpoint.languages[1]}, not from {wanted[0]} to {wanted[1]}"
        )
    require_fitting_vocabulary(checkpoint, data, *languages.values())
    models, *_ = checkpoint_utils.load_model_ensemble_and_task(
        [str(path)], arg_overrides={"data": data, **languages}
    )
    model: Any = models[0].eval().requires_grad_(False)
    output = linear_output_layer(model.decoder) if hasattr(model, "decoder") else None
    if output is None:
        raise UsageError(
            f"--teacher {path}: {type(model).__name__} does not project a decoder's features to the "
            "vocabulary by one matrix; distillation needs a teacher that does"
        )
    return _TeacherModel(model, output)


def _require_long_enough(teacher: Any, student: Any, path: str) -> None:
    """Refuse a teacher that has no embedding for places in sentences that the student reads.

    Only learned positions end: fairseq computes others for any place.
    """
    from fairseq.modules import LearnedPositionalEmbedding

    for stack, name in (("encoder", "source"), ("decoder", "target")):
        positions = getattr(getattr(teacher, stack, None), "embed_positions", None)
        if not isinstance(positions, LearnedPositionalEmbedding):
            continue
        longest = getattr(student, stack).max_positions()
        if positions.max_positions < longest:
            raise UserError(
                f"--teacher {path} reads {name} sentences of at most {positions.max_positions} tokens, "
                f"the student of {longest}: give --max-{name}-positions {positions.max_positions}"
            )


@register_criterion("label_smoothed_cross_entropy_distillation", dataclass=DistillationConfig)
class LabelSmoothedCrossEntropyDistillationCriterion(AdminLabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy and the divergence from a teacher's distribution."""

    #: The teacher may be any model, whose layers may wait for the GPU.
    recordable = False

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        label_smoothing_over: Any = "others",
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
        alignment_lambda: float = 0.05,
        teacher: str = "",
        distillation_weight: float = 0.5,
        distillation_temperature: float = 1.0,
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
        if not 0 <= distillation_weight <= 1:
            raise UsageError(
                f"--distillation-weight must be from 0 to 1, not {distillation_weight}"
            )
        if not 0 < distillation_temperature < float("inf"):
            raise UsageError(
                f"--distillation-temperature must be above 0, not {distillation_temperature}"
            )
        self.path = teacher
        self.share = distillation_weight
        self.temperature = distillation_temperature
        # Not registered as a submodule: fairseq would train and save its parameters.
        self.__dict__["_teacher"] = None

    def check_model(self, model: Any) -> None:
        """Called by the trainer before training: load the teacher.

        Raises:
            UsageError: `--teacher` is missing, or the student has no decoder.
            UserError: the teacher does not fit the data, or reads shorter sentences than the student.
        """
        super().check_model(model)
        _require_long_enough(self._load().model, model, self.path)

    def plan(self, model: Any) -> Plan:
        """One pass; in training with the divergence from the teacher."""
        divergence = "teacher_kl" if model.training and self.share else None
        return Plan(passes=1, alpha=0.0, scale=1.0, divergence=divergence)

    def of_features(
        self,
        model: Any,
        sample: dict[str, Any],
        features: Tensor,
        layer: OutputLayer,
        target: Tensor,
        alpha: float,
    ) -> LossSums:
        """As the base class; in training with the teacher's features of the same tokens."""
        if not self.plan(model).divergence:
            return super().of_features(model, sample, features, layer, target, alpha)
        teacher = self._load()
        weight: Any = teacher.output.weight
        taught = Teacher(
            self._read(teacher, model, sample, features=True)[0][:, self.ignore_prefix_size :],
            weight, getattr(teacher.output, "bias", None), self.share, self.temperature,
        )  # fmt: skip
        return linear_distillation(
            features[0], layer.weight, layer.bias, target, self._smoothing(len(layer.weight)),
            taught, self.padding_idx, count_correct=self.report_accuracy,
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
        """As the base class; in training with the teacher's log-probabilities of the same tokens."""
        if not self.plan(model).divergence:
            return super().of_lprobs(model, sample, lprobs, target, alpha, reduce)
        teacher = self._load()
        output = self._read(teacher, model, sample)
        taught = log_probabilities(teacher.model, output)[:, self.ignore_prefix_size :]
        return distillation_loss(
            lprobs[0], taught.flatten(0, 1).to(lprobs.dtype), target,
            self._smoothing(lprobs.shape[-1]), self.share, self.temperature, self.padding_idx,
            reduce, self.report_accuracy,
        )  # fmt: skip

    @torch.no_grad()
    def _read(
        self, teacher: _TeacherModel, model: Any, sample: dict[str, Any], features: bool = False
    ) -> Any:
        """The teacher's output for a batch, or its features, where the student is and in its
        precision."""
        parameter = next(model.parameters())
        teacher.model.to(parameter.device, parameter.dtype)
        # Not `features_only`, which recurrent models of fairseq do not know.
        read = teacher.model.extract_features if features else teacher.model
        return read(**sample["net_input"])

    def _load(self) -> _TeacherModel:
        found: _TeacherModel | None = self._teacher
        if found is None:
            if not self.path:
                raise UsageError(
                    "--criterion label_smoothed_cross_entropy_distillation needs --teacher FILE, a "
                    "checkpoint trained on the same data"
                )
            found = self.__dict__["_teacher"] = load_teacher(self.path, self.task)
            count = sum(parameter.numel() for parameter in found.model.parameters())
            logger.info("teacher %s: %s parameters", self.path, f"{count:,}")
        return found
