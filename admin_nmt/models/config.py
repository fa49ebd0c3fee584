"""Configuration of `admin_transformer`: fairseq's `TransformerConfig` and our options."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.models.transformer import TransformerConfig
from fairseq.utils import eval_str_list
from omegaconf import DictConfig, OmegaConf

from admin_nmt.errors import UsageError
from admin_nmt.initialization.registry import SCHEMES
from admin_nmt.initialization.scheme import Depth
from admin_nmt.models.heads import read_heads_per_layer
from admin_nmt.modules.head_names import Head, LayerHeads, parse_heads
from admin_nmt.modules.residual_attention import residual_kinds
from admin_nmt.option_names import flag, plain_value


def _option(
    default: Any,
    text: str,
    *,
    changes_function: bool,
    folds: bool | str = True,
    plain: Any = None,
) -> Any:
    """A field with what the rest of the package has to know about the option.

    Args:
        default: of the option.
        text: its help.
        changes_function: the same weights compute something else under another value, so that
            checkpoints which differ in it cannot be averaged, training does not go on with another one
            (`host/resuming.py` has the exceptions), and scores of heads do not carry over.
        folds: a model with it can become a plain Transformer; a string says why it cannot.
        plain: the value under which our model is fairseq's `transformer`.
    """
    metadata = {
        "help": text,
        "changes_function": changes_function,
        "folds": folds,
        "plain": plain,
    }
    return field(default=default, metadata=metadata)


@dataclass
class AdminTransformerConfig(TransformerConfig):
    """fairseq's options, plus how the model starts."""

    init_type: ChoiceEnum(list(SCHEMES)) = _option(  # type: ignore[valid-type]
        "admin",
        "residual connections and initial values: "
        + ", ".join(f"{name} ({value.summary})" for name, value in SCHEMES.items()),
        changes_function=True,
        plain="default",
    )
    # fairseq makes options from the annotations and reads only the old spelling of unions.
    admin_profile: Optional[str] = _option(  # noqa: UP045
        None,
        "take the initial omegas from this file (written by 'admin-nmt profile') instead of "
        "profiling; only read when training starts from scratch",
        changes_function=False,
    )
    admin_profile_batches: int = _option(
        1,
        "training batches over which the ADMIN profile is averaged",
        changes_function=False,
        plain=1,
    )
    admin_freeze_omega: bool = _option(
        False,
        "keep omega at its initial values instead of training it",
        changes_function=False,
        plain=False,
    )
    residual_attention: Optional[str] = _option(  # noqa: UP045
        None,
        "carry attention scores from layer to layer (RealFormer): a list out of encoder, decoder "
        "(self-attention) and cross, separated by commas; all; or none",
        changes_function=True,
        folds="a plain Transformer carries no attention scores from layer to layer",
    )
    residual_attention_reduce: ChoiceEnum(["sum", "mean"]) = _option(  # type: ignore[valid-type]
        "mean",
        "softmax over the sum of the scores, or over their mean over the layers so far",
        changes_function=True,
        plain="mean",
    )
    fused_residual_norm: bool = _option(
        False,
        "compute residual connection, dropout and LayerNorm of post-LN sublayers in one CUDA kernel "
        "(Triton); the same function, and on CPUs the same operations as without",
        changes_function=False,
        plain=False,
    )
    compile: bool = _option(
        False,
        "compile the layers with torch.compile for training: one compilation for all layers made "
        "alike, for batches of any size; not yet measured on a GPU, slower on CPUs",
        changes_function=False,
        plain=False,
    )
    cuda_graphs: bool = _option(
        False,
        "record forward pass, loss and backward pass of each frequent shape of batch as a CUDA graph "
        "and replay it, so that the GPU does not wait between kernels (2.7 to 3.5 times as fast on an H200); "
        "use it with --num-batch-buckets, which keeps the number of shapes small; one GPU",
        changes_function=False,
        plain=False,
    )
    heads_per_layer: Optional[str] = _option(  # noqa: UP045
        None,
        "heads of each layer of a pruned model, such as 'E:8,7,0 A:8,8 D:8,8' (E encoder self-, A "
        "encoder-decoder, D decoder self-attention); 'admin-nmt prune' writes it into checkpoints, "
        "and training on from one takes it over",
        changes_function=True,
        # Not None, under which training on from a pruned checkpoint takes over its heads.
        plain="",
    )
    head_mask: Optional[str] = _option(  # noqa: UP045
        None,
        "heads that contribute nothing from the start of training: a list such as E:1:3,A:2:1, or a "
        "file written by 'admin-nmt prune --list'",
        changes_function=True,
    )

    alignment_layer: Optional[int] = _option(  # noqa: UP045
        None,
        "decoder layer, from 0, whose encoder-decoder attention is trained to align words, with "
        "--load-alignments (the last but one in Garg et al. 2019); alignments of translations come from "
        "it, else from the last layer",
        changes_function=False,
    )
    alignment_heads: int = _option(
        1,
        "with --alignment-layer: the first N heads of that layer are trained to align, by their average",
        changes_function=False,
        plain=1,
    )
    full_context_alignment: bool = _option(
        False,
        "with --alignment-layer: alignment is trained and read in a pass of its own, in which the "
        "decoder sees the whole translation",
        changes_function=False,
        plain=False,
    )

    # Parsed when they are first asked for; the options are not changed after that.
    @cached_property
    def heads(self) -> Mapping[str, tuple[LayerHeads, ...]]:
        """Kind -> heads of each layer, by `heads_per_layer` and the sizes.

        Raises:
            UsageError: `heads_per_layer` does not fit the other options.
        """
        return read_heads_per_layer(self)

    @cached_property
    def layout(self) -> Mapping[str, tuple[int, ...]]:
        """Kind -> how many heads (with values) each layer has; raises what `heads` raises."""
        return {
            kind: tuple(len(layer.values) for layer in layers)
            for kind, layers in self.heads.items()
        }

    @cached_property
    def masked_heads(self) -> tuple[Head, ...]:
        """The heads of `head_mask`.

        Raises:
            UsageError: it is not a list of heads.
        """
        return tuple(parse_heads(self.head_mask, "--head-mask")) if self.head_mask else ()


def our_options() -> list[Field]:
    """The fields that fairseq's Transformer does not have, with the metadata of `_option`."""
    theirs = {field.name for field in fields(TransformerConfig)}
    return [field for field in fields(AdminTransformerConfig) if field.name not in theirs]


def function_options() -> dict[str, Any]:
    """Options whose value changes what given weights compute -> their value in a plain Transformer."""
    return {
        option.name: option.metadata["plain"]
        for option in our_options()
        if option.metadata["changes_function"]
    }


#: Options of fairseq's Transformer that this model does not serve, and the value that is allowed.
UNSUPPORTED = {
    "adaptive_input": False,
    "quant_noise_pq": 0,
    "quant_noise_scalar": 0,
    "encoder_xformers_att_config": None,
    "decoder_xformers_att_config": None,
    "encoder_layers_to_keep": None,
    "decoder_layers_to_keep": None,
    "cross_self_attention": False,
    "base_layers": 0,
    "char_inputs": False,
    "export": False,
    # Not on fairseq's command line for this model, but its layers read them from a YAML file.
    "scale_attn": False,
    "scale_heads": False,
    "scale_fc": False,
    "scale_resids": False,
}


def to_config(args: Namespace | DictConfig | AdminTransformerConfig) -> AdminTransformerConfig:
    """The configuration from fairseq's command line (a namespace) or from a YAML file."""
    if isinstance(args, DictConfig):
        container = OmegaConf.to_container(args, resolve=True)
        assert isinstance(container, dict)
        args = Namespace(**{str(key): value for key, value in container.items()})
    return AdminTransformerConfig.from_namespace(args)


def check(cfg: AdminTransformerConfig) -> None:
    """Refuse what the model cannot do, by the option's name.

    Raises:
        UsageError: an unsupported option, an unknown init type, or two options that exclude
            each other.
    """
    for name, allowed in UNSUPPORTED.items():
        value = plain_value(getattr(cfg, name, None))
        if value and value != allowed:
            raise UsageError(f"admin_transformer does not support {flag(name)} (got {value})")
    init_type = str(plain_value(cfg.init_type))
    if init_type not in SCHEMES:
        raise UsageError(f"--init-type {init_type} is unknown; choose from {', '.join(SCHEMES)}")
    pre_norm = cfg.encoder.normalize_before or cfg.decoder.normalize_before
    if pre_norm and not SCHEMES[init_type].scheme(Depth(1, 1), False).supports_pre_norm:
        side = "encoder" if cfg.encoder.normalize_before else "decoder"
        raise UsageError(
            f"--init-type {init_type} is not defined for pre-LN; drop --{side}-normalize-before "
            "or use --init-type default"
        )
    if cfg.admin_profile and init_type != "admin":
        raise UsageError(f"--admin-profile needs --init-type admin, not {init_type}")
    if cfg.admin_profile_batches < 1:
        raise UsageError(
            f"--admin-profile-batches must be at least 1, not {cfg.admin_profile_batches}"
        )
    for side, stack in (("encoder", cfg.encoder), ("decoder", cfg.decoder)):
        for name in ("attention_heads", "layers", "embed_dim", "ffn_embed_dim"):
            if getattr(stack, name) < 1:
                raise UsageError(
                    f"{flag(f'{side}_{name}')} must be at least 1, not {getattr(stack, name)}"
                )
        if stack.embed_dim % stack.attention_heads:
            raise UsageError(
                f"--{side}-embed-dim {stack.embed_dim} is not divisible by "
                f"--{side}-attention-heads {stack.attention_heads}"
            )
    _check_dropouts(cfg)
    _check_output_layer(cfg)
    _check_residual_attention(cfg)
    _check_compile(cfg)
    _check_cuda_graphs(cfg)
    _ = cfg.heads  # parsed and checked
    _check_alignment(cfg)


def _check_dropouts(cfg: AdminTransformerConfig) -> None:
    """Every drop probability lies in [0, 1)."""
    for name in (
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "relu_dropout",
        "adaptive_softmax_dropout",
    ):
        _check_probability(flag(name), getattr(cfg, name))
    _check_probability("--encoder-layerdrop", cfg.encoder.layerdrop)
    _check_probability("--decoder-layerdrop", cfg.decoder.layerdrop)


def _check_probability(flag: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"{flag} must be at least 0 and less than 1, not {value}")


def _check_output_layer(cfg: AdminTransformerConfig) -> None:
    """Sizes of the output layer, which fairseq takes as they are."""
    cutoffs = adaptive_cutoffs(cfg)
    if cutoffs:
        if cutoffs != sorted(set(cutoffs)) or cutoffs[0] < 1:
            raise UsageError(
                f"--adaptive-softmax-cutoff {','.join(map(str, cutoffs))}: give numbers of words that grow, "
                "such as 5000,20000"
            )
        if not cfg.adaptive_softmax_factor > 0:
            raise UsageError(
                f"--adaptive-softmax-factor must be above 0, not {cfg.adaptive_softmax_factor}"
            )
        if cfg.tie_adaptive_weights:
            raise UsageError(
                "--tie-adaptive-weights ties them to those of --adaptive-input, which admin_transformer "
                "does not support"
            )
        return
    for name in ("share_all_embeddings", "share_decoder_input_output_embed"):
        if getattr(cfg, name) and cfg.decoder.output_dim != cfg.decoder.embed_dim:
            raise UsageError(
                f"{flag(name)} needs --decoder-output-dim {cfg.decoder.embed_dim}, the size of the "
                f"embeddings, not {cfg.decoder.output_dim}"
            )


def adaptive_cutoffs(cfg: AdminTransformerConfig) -> list[int]:
    """The numbers of `--adaptive-softmax-cutoff`, which old checkpoints hold as text; none without it."""
    return eval_str_list(cfg.adaptive_softmax_cutoff, type=int) or []


def _check_compile(cfg: AdminTransformerConfig) -> None:
    """What layers that are compiled do not serve."""
    if not cfg.compile:
        return
    others = {
        "--residual-attention": residual_kinds(cfg.residual_attention),
        "--checkpoint-activations": cfg.checkpoint_activations,
        "--fused-residual-norm": cfg.fused_residual_norm,  # the compiler fuses these itself
        "--heads-per-layer": cfg.heads_per_layer,
        "--head-mask": cfg.head_mask,
    }
    for option, given in others.items():
        if given:
            raise UsageError(f"--compile is not supported with {option}")


def _check_cuda_graphs(cfg: AdminTransformerConfig) -> None:
    """What a replay cannot serve: choices of the host in each forward pass, and what is untried."""
    if not cfg.cuda_graphs:
        return
    others = {
        "--compile": cfg.compile,
        "--checkpoint-activations": cfg.checkpoint_activations,
        "--encoder-layerdrop": cfg.encoder.layerdrop,
        "--decoder-layerdrop": cfg.decoder.layerdrop,
        "--adaptive-softmax-cutoff": cfg.adaptive_softmax_cutoff,
    }
    for option, given in others.items():
        if given:
            raise UsageError(f"--cuda-graphs is not supported with {option}")


def _check_residual_attention(cfg: AdminTransformerConfig) -> None:
    """The chains that are asked for exist."""
    kinds = residual_kinds(cfg.residual_attention)
    if kinds == {"cross"} and cfg.no_cross_attention:
        raise UsageError("--residual-attention cross has nothing to act on: --no-cross-attention")
    reduce = plain_value(cfg.residual_attention_reduce)
    if reduce not in ("sum", "mean"):
        raise UsageError(f"--residual-attention-reduce must be sum or mean, not {reduce}")


def _check_alignment(cfg: AdminTransformerConfig) -> None:
    """The heads that are trained to align exist."""
    layer, wanted = cfg.alignment_layer, cfg.alignment_heads
    if layer is None:
        if cfg.full_context_alignment:
            raise UsageError("--full-context-alignment needs --alignment-layer N")
        return
    if cfg.no_cross_attention:
        raise UsageError("--alignment-layer has nothing to act on: --no-cross-attention")
    if not 0 <= layer < cfg.decoder.layers:
        raise UsageError(
            f"--alignment-layer {layer}: the decoder has layers 0 to {cfg.decoder.layers - 1}"
        )
    if cfg.decoder.layerdrop:
        raise UsageError("--alignment-layer is not supported with --decoder-layerdrop")
    heads = cfg.layout["A"][layer]
    if not 1 <= wanted <= heads:
        raise UsageError(
            f"--alignment-heads {wanted}: encoder-decoder attention of layer {layer} has {heads} heads"
        )
