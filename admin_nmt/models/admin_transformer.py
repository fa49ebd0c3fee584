"""`admin_transformer` and its named architectures."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import FairseqEncoder, register_model, register_model_architecture
from fairseq.models.transformer import TransformerModelBase
from fairseq.models.transformer.transformer_legacy import (
    base_architecture as transformer_base_architecture,
)
from fairseq.models.transformer.transformer_legacy import (
    transformer_iwslt_de_en,
    transformer_wmt_en_de_big,
)
from omegaconf import DictConfig
from torch import Tensor, nn

from admin_nmt.errors import UsageError, UserError
from admin_nmt.initialization.registry import SCHEMES
from admin_nmt.initialization.scheme import Depth, Scheme
from admin_nmt.models.config import (
    AdminTransformerConfig,
    adaptive_cutoffs,
    check,
    function_options,
    our_options,
    to_config,
)
from admin_nmt.models.heads import apply_mask, require_same_heads
from admin_nmt.models.progress_metrics import log_progress
from admin_nmt.models.stacks import AdminTransformerDecoder, AdminTransformerEncoder
from admin_nmt.modules.residual import RESIDUALS, Residual, ScaledResidual
from admin_nmt.modules.walk import all_layers, all_modules
from admin_nmt.option_names import plain_value

#: Suffixes of parameters that only fairseq's own attention has; the second is that of old files.
_STOCK_NAMES = ("_attn.k_proj.weight", "_attn.in_proj_weight")


@register_model("admin_transformer")
class AdminTransformerModel(TransformerModelBase):
    """fairseq's encoder-decoder Transformer with a choice of residual scheme (`--init-type`).

    With `--init-type admin` the omegas are measured when `fairseq-train` starts from scratch and
    live in the checkpoint from then on (`admin_nmt.host.profiling`).
    """

    #: Options whose value changes what given weights compute -> their value in a plain Transformer.
    changes_function = function_options()
    #: Whether the omegas have their final initial values: profiled, read, or from a checkpoint.
    omegas_ready: bool
    #: What was trained to align, under the names of fairseq's `transformer_align`; None and False where
    #: nothing was.
    alignment_layer: int | None
    alignment_heads: int | None
    full_context_alignment: bool

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Options of fairseq's Transformer and ours; defaults come from the architecture."""
        gen_parser_from_dataclass(
            parser, AdminTransformerConfig(), delete_default=True, with_prefix=""
        )

    @classmethod
    def build_model(
        cls, args: Namespace | DictConfig | AdminTransformerConfig, task: Any
    ) -> "AdminTransformerModel":
        """Build from fairseq's command line, a YAML recipe, or a configuration.

        Raises:
            UsageError: an option is unsupported or two options exclude each other.
        """
        cfg = to_config(args)
        check(cfg)
        if cfg.share_all_embeddings and task.source_dictionary != task.target_dictionary:
            raise UsageError("--share-all-embeddings needs data with a joined dictionary")
        if cfg.merge_src_tgt_embed and task.source_dictionary != task.target_dictionary:
            # fairseq numbers the words of the merged dictionary anew, but not those of the data.
            raise UsageError(
                "--merge-src-tgt-embed: the data has a dictionary for each language; prepare it with "
                "--joined-dictionary and give --share-all-embeddings"
            )
        largest, num_words = max(adaptive_cutoffs(cfg), default=0), len(task.target_dictionary)
        if largest > num_words:
            raise UsageError(
                f"--adaptive-softmax-cutoff {largest}: the target vocabulary has {num_words} words"
            )
        try:
            return super().build_model(cfg, task)
        except ValueError as error:  # fairseq's own checks, which name the options
            raise UsageError(str(error)) from error

    @classmethod
    def scheme_of(cls, cfg: AdminTransformerConfig) -> Scheme:
        """The residual scheme that `cfg.init_type` names, for the depth of `cfg`."""
        depth = Depth(cfg.encoder.layers, cfg.decoder.layers, 2 if cfg.no_cross_attention else 3)
        return SCHEMES[plain_value(cfg.init_type)].scheme(depth, not cfg.admin_freeze_omega)

    @classmethod
    def build_encoder(
        cls, cfg: AdminTransformerConfig, src_dict: Any, embed_tokens: nn.Embedding
    ) -> AdminTransformerEncoder:
        """Called by fairseq's `build_model`."""
        return AdminTransformerEncoder(cfg, src_dict, embed_tokens, cls.scheme_of(cfg))

    @classmethod
    def build_decoder(
        cls, cfg: AdminTransformerConfig, tgt_dict: Any, embed_tokens: nn.Embedding
    ) -> AdminTransformerDecoder:
        """Called by fairseq's `build_model`."""
        return AdminTransformerDecoder(
            cfg,
            tgt_dict,
            embed_tokens,
            cls.scheme_of(cfg),
            no_encoder_attn=cfg.no_cross_attention,
        )

    def __init__(self, cfg: AdminTransformerConfig, encoder: Any, decoder: Any) -> None:
        super().__init__(cfg, encoder, decoder)
        self.omegas_ready = not self.scheme_of(cfg).needs_profile
        apply_mask(self, cfg.masked_heads, cfg.layout)
        self.alignment_layer = cfg.alignment_layer
        self.alignment_heads = None if cfg.alignment_layer is None else cfg.alignment_heads
        self.full_context_alignment = cfg.full_context_alignment

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq in every update: modules that want the number get it, and fairseq's
        metrics get ours beside them."""
        for module in all_modules(self):
            listener = getattr(type(module), "set_num_updates", None)
            # fairseq's stacks only pass it on to their own modules, which are all here already.
            if module is not self and listener not in (None, FairseqEncoder.set_num_updates):
                listener(module, num_updates)
        if self.training:
            log_progress(self)

    def train(self, mode: bool = True) -> "AdminTransformerModel":
        """Called by fairseq twice in every update: does nothing where all modules are in this mode."""
        if any(module.training is not mode for module in all_modules(self)):
            super().train(mode)
        return self

    def residuals(self) -> Iterator[tuple[str, Residual]]:
        """All residual connections with their module names, in forward order."""
        for stack_name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for index, layer in enumerate(all_layers(stack.layers)):
                for name in RESIDUALS:
                    residual = getattr(layer, name, None)
                    if residual is not None:
                        yield f"{stack_name}.layers.{index}.{name}", residual

    def load_state_dict(
        self,
        state_dict: dict[str, Tensor],
        strict: bool = True,
        model_cfg: Any = None,
        args: Namespace | None = None,
    ) -> Any:
        """Load a checkpoint's model, also one of fairseq's own `transformer`.

        A state dict without any omega is that of a plain Transformer, which is this model with
        omega = 1.

        Raises:
            UserError: it is a plain one, and this model has other constants on its shortcuts, or
                the checkpoint's model has other sizes or heads.
        """
        if strict:
            self._require_same_sizes(state_dict)
        require_same_heads(state_dict, self.cfg)
        omegas = {
            f"{name}.omega": residual.omega
            for name, residual in self.residuals()
            if isinstance(residual, ScaledResidual)
        }
        stock_names = any(name.endswith(_STOCK_NAMES) for name in state_dict)
        if not any(name in state_dict for name in omegas) and (omegas or stock_names):
            self._require_plain_shortcuts()
            plain = {name: omega.detach().clone().fill_(1.0) for name, omega in omegas.items()}
            state_dict = {**state_dict, **plain}
        result = super().load_state_dict(state_dict, strict, model_cfg, args)
        self.omegas_ready = True
        return result

    def _require_same_sizes(self, state_dict: dict[str, Tensor]) -> None:
        """Refuse another depth or width by its option: PyTorch would list all tensors, and heads of another
        width would look like another number of heads."""
        differing = []
        for stack in ("encoder", "decoder"):
            places = (name.split(".")[:3] for name in state_dict)
            found = {
                "layers": len({place[2] for place in places if place[:2] == [stack, "layers"]})
            }
            for option, name in (("embed_dim", "fc2"), ("ffn_embed_dim", "fc1")):
                bias = state_dict.get(f"{stack}.layers.0.{name}.bias")
                if bias is not None:
                    found[option] = len(bias)
            ours = getattr(self.cfg, stack)
            differing += [
                (f"--{stack}-{option.replace('_', '-')}", theirs, getattr(ours, option))
                for option, theirs in found.items()
                if theirs and theirs != getattr(ours, option)
            ]
        if differing:
            theirs, mine = (
                ", ".join(f"{row[0]} {row[column]}" for row in differing) for column in (1, 2)
            )
            raise UserError(f"the checkpoint is of a model with {theirs}; this one has {mine}")

    def _require_plain_shortcuts(self) -> None:
        for _, residual in self.residuals():
            if not isinstance(residual, ScaledResidual) and residual.constant != 1:
                raise UserError(
                    f"--init-type {plain_value(self.cfg.init_type)} cannot start from the weights "
                    "of a plain Transformer: its residual connections would compute something "
                    "else; use --init-type admin or default"
                )


#: What every architecture adds to fairseq's.
_OURS = {
    option.name: plain_value(option.default)
    for option in our_options()
    if option.default is not None
}
_REALFORMER = {"init_type": "default", "residual_attention": "all"}


def _default(args: Any, **values: Any) -> None:
    """Set the attributes of `args` that the user did not set."""
    for name, value in values.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


@register_model_architecture("admin_transformer", "admin_transformer")
def base_architecture(args: Any) -> None:
    """6L-6L, D = 512, FFN 2048, 8 heads (Transformer base)."""
    _default(args, **_OURS)
    transformer_base_architecture(args)


@register_model_architecture("admin_transformer", "admin_transformer_tiny")
def tiny(args: Any) -> None:
    """2L-2L, D = 32, for tests."""
    _default(args, encoder_layers=2, decoder_layers=2, encoder_embed_dim=32)
    _default(args, encoder_ffn_embed_dim=64, encoder_attention_heads=4, decoder_attention_heads=4)
    base_architecture(args)


@register_model_architecture("admin_transformer", "admin_transformer_iwslt_de_en")
def iwslt_de_en(args: Any) -> None:
    """D = 512, FFN 1024, 4 heads, dropout 0.3 / 0.1 / 0.1 (ADMIN's IWSLT14 recipe)."""
    _default(args, dropout=0.3, attention_dropout=0.1, activation_dropout=0.1)
    _default(args, **_OURS)
    transformer_iwslt_de_en(args)


@register_model_architecture("admin_transformer", "admin_transformer_wmt_en_de")
def wmt_en_de(args: Any) -> None:
    """Transformer base with dropout 0.1 / 0.1 / 0.1 (ADMIN's WMT14 En-De recipe)."""
    _default(args, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1)
    base_architecture(args)


@register_model_architecture("admin_transformer", "admin_transformer_wmt_en_fr")
def wmt_en_fr(args: Any) -> None:
    """Transformer base with dropout 0.1 / 0.1 / 0.1 (ADMIN's WMT14 En-Fr recipe)."""
    wmt_en_de(args)


@register_model_architecture("admin_transformer", "admin_transformer_wmt_en_de_big")
def wmt_en_de_big(args: Any) -> None:
    """D = 1024, FFN 4096, 16 heads, dropout 0.3, attention dropout 0.1 (Transformer big)."""
    _default(args, **_OURS)
    transformer_wmt_en_de_big(args)


@register_model_architecture("admin_transformer", "admin_realformer")
def realformer(args: Any) -> None:
    """Transformer base, plain post-LN, scores carried in all attentions (arXiv 2012.11747).

    The softmax is over the mean of the scores, as in the paper's translation models.
    """
    _default(args, **_REALFORMER)
    base_architecture(args)


@register_model_architecture("admin_transformer", "admin_realformer_iwslt_de_en")
def realformer_iwslt_de_en(args: Any) -> None:
    """`admin_transformer_iwslt_de_en` as `admin_realformer`."""
    _default(args, **_REALFORMER)
    iwslt_de_en(args)


@register_model_architecture("admin_transformer", "admin_realformer_wmt_en_de")
def realformer_wmt_en_de(args: Any) -> None:
    """`admin_transformer_wmt_en_de` as `admin_realformer`."""
    _default(args, **_REALFORMER)
    wmt_en_de(args)


def _register_depth(
    base: Callable[[Any], None], name: str, encoder_layers: int, decoder_layers: int
) -> None:
    """Register `admin_NAME_ENCl_DECl`: the architecture `base` at another depth."""

    def architecture(args: Any) -> None:
        _default(args, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
        base(args)

    architecture.__doc__ = f"`admin_{name}` with {encoder_layers}L-{decoder_layers}L."
    architecture.__name__ = f"{name}_{encoder_layers}l_{decoder_layers}l"
    register_model_architecture("admin_transformer", f"admin_{architecture.__name__}")(architecture)


for _base, _name in (
    (iwslt_de_en, "transformer_iwslt_de_en"),
    (wmt_en_de, "transformer_wmt_en_de"),
    (wmt_en_fr, "transformer_wmt_en_fr"),
    (realformer_iwslt_de_en, "realformer_iwslt_de_en"),
    (realformer_wmt_en_de, "realformer_wmt_en_de"),
):
    _register_depth(_base, _name, 18, 18)
    _register_depth(_base, _name, 60, 12)
_register_depth(wmt_en_de, "transformer_wmt_en_de", 100, 100)
