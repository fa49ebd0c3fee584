"""Named architectures, sizes, state-dict names, and what is refused."""

import re
import weakref
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.errors import UsageError
from tests.support.criterions import STILL
from tests.support.models import randomise

SMALL_KEYS = [
    "decoder.embed_tokens.weight",
    "decoder.layers.0.encoder_attn.kv_proj.bias",
    "decoder.layers.0.encoder_attn.kv_proj.weight",
    "decoder.layers.0.encoder_attn.out_proj.bias",
    "decoder.layers.0.encoder_attn.out_proj.weight",
    "decoder.layers.0.encoder_attn.q_proj.bias",
    "decoder.layers.0.encoder_attn.q_proj.weight",
    "decoder.layers.0.encoder_attn_layer_norm.bias",
    "decoder.layers.0.encoder_attn_layer_norm.weight",
    "decoder.layers.0.encoder_attn_residual.omega",
    "decoder.layers.0.fc1.bias",
    "decoder.layers.0.fc1.weight",
    "decoder.layers.0.fc2.bias",
    "decoder.layers.0.fc2.weight",
    "decoder.layers.0.ffn_residual.omega",
    "decoder.layers.0.final_layer_norm.bias",
    "decoder.layers.0.final_layer_norm.weight",
    "decoder.layers.0.self_attn.out_proj.bias",
    "decoder.layers.0.self_attn.out_proj.weight",
    "decoder.layers.0.self_attn.qkv_proj.bias",
    "decoder.layers.0.self_attn.qkv_proj.weight",
    "decoder.layers.0.self_attn_layer_norm.bias",
    "decoder.layers.0.self_attn_layer_norm.weight",
    "decoder.output_projection.weight",
    "decoder.version",
    "encoder.embed_tokens.weight",
    "encoder.layers.0.fc1.bias",
    "encoder.layers.0.fc1.weight",
    "encoder.layers.0.fc2.bias",
    "encoder.layers.0.fc2.weight",
    "encoder.layers.0.ffn_residual.omega",
    "encoder.layers.0.final_layer_norm.bias",
    "encoder.layers.0.final_layer_norm.weight",
    "encoder.layers.0.self_attn.out_proj.bias",
    "encoder.layers.0.self_attn.out_proj.weight",
    "encoder.layers.0.self_attn.qkv_proj.bias",
    "encoder.layers.0.self_attn.qkv_proj.weight",
    "encoder.layers.0.self_attn_layer_norm.bias",
    "encoder.layers.0.self_attn_layer_norm.weight",
    "encoder.version",
]


def test_names_in_checkpoints_are_frozen(build: Callable[..., Any]) -> None:
    """A change here breaks every checkpoint that users have."""
    model = build("--encoder-layers", "1", "--decoder-layers", "1")
    assert sorted(model.state_dict()) == sorted(SMALL_KEYS)


def body(encoder_layers: int, decoder_layers: int, dim: int, inner: int) -> int:
    """Parameters of layers on paper: attention 4 (D^2 + D), FFN 2 D F + D + F, LayerNorm 2 D."""
    attention, norm = 4 * (dim * dim + dim), 2 * dim
    ffn = 2 * dim * inner + dim + inner
    return encoder_layers * (attention + ffn + 2 * norm) + decoder_layers * (
        2 * attention + ffn + 3 * norm
    )


#: Of everything, of attention weights, of the FFN's activation.
DROPOUTS = {
    "admin_transformer": (0.1, 0.0, 0.0),
    "admin_transformer_iwslt_de_en": (0.3, 0.1, 0.1),
    "admin_transformer_wmt_en_(de|fr)": (0.1, 0.1, 0.1),
    "admin_transformer_wmt_en_de_big": (0.3, 0.1, 0.0),
}


@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        ("admin_transformer", (6, 6, 512, 2048)),
        ("admin_transformer_iwslt_de_en", (6, 6, 512, 1024)),
        ("admin_transformer_iwslt_de_en_18l_18l", (18, 18, 512, 1024)),
        ("admin_transformer_iwslt_de_en_60l_12l", (60, 12, 512, 1024)),
        ("admin_transformer_wmt_en_de", (6, 6, 512, 2048)),
        ("admin_transformer_wmt_en_de_18l_18l", (18, 18, 512, 2048)),
        ("admin_transformer_wmt_en_de_60l_12l", (60, 12, 512, 2048)),
        ("admin_transformer_wmt_en_de_100l_100l", (100, 100, 512, 2048)),
        ("admin_transformer_wmt_en_fr", (6, 6, 512, 2048)),
        ("admin_transformer_wmt_en_fr_18l_18l", (18, 18, 512, 2048)),
        ("admin_transformer_wmt_en_fr_60l_12l", (60, 12, 512, 2048)),
        ("admin_transformer_wmt_en_de_big", (6, 6, 1024, 4096)),
    ],
)
def test_named_architectures_have_the_published_sizes(
    parse: Callable[..., Any], task: Any, arch: str, sizes: tuple[int, int, int, int]
) -> None:
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    cfg = parse("--arch", arch, "--share-all-embeddings").model
    found = cfg.dropout, cfg.attention_dropout, cfg.activation_dropout
    (published,) = (
        d for name, d in DROPOUTS.items() if re.fullmatch(rf"{name}(_\d+l_\d+l)?", arch)
    )
    assert found == published
    with torch.device("meta"):
        model = task.build_model(cfg)
    assert isinstance(model, AdminTransformerModel)
    encoder_layers, decoder_layers, dim, _ = sizes
    # omega: one vector per sublayer but the first of each stack (79,872 - 1,024 for 60L-12L).
    omega = (2 * encoder_layers + 3 * decoder_layers - 2) * dim
    vocabulary = len(task.source_dictionary) * dim
    assert sum(p.numel() for p in model.parameters()) == body(*sizes) + omega + vocabulary
    if arch == "admin_transformer_wmt_en_de_60l_12l":
        assert round(body(*sizes) / 1e6, 1) == 239.6 and omega == 79_872 - 1_024


def test_registry_holds_our_class_for_every_name() -> None:
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

    from admin_nmt.models.admin_transformer import AdminTransformerModel

    assert MODEL_REGISTRY["admin_transformer"] is AdminTransformerModel
    ours = [name for name in ARCH_MODEL_REGISTRY if name.startswith("admin_")]
    assert len(ours) == 20
    assert all(ARCH_MODEL_REGISTRY[name] is AdminTransformerModel for name in ours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--quant-noise-pq", "0.1"), "does not support --quant-noise-pq"),
        (("--cross-self-attention",), "does not support --cross-self-attention"),
        (("--base-layers", "1"), "does not support --base-layers"),
        (("--adaptive-input",), "does not support --adaptive-input"),
        (("--char-inputs",), "does not support --char-inputs"),
        (("--export",), "does not support --export"),
        (("--encoder-normalize-before",), "admin is not defined for pre-LN; drop --encoder"),
        (("--init-type", "deepnorm", "--decoder-normalize-before"), "drop --decoder-normalize"),
        (("--init-type", "default", "--admin-profile", "x"), "--admin-profile needs --init-type"),
        (("--admin-profile-batches", "0"), "--admin-profile-batches must be at least 1"),
        (("--encoder-attention-heads", "5"), "32 is not divisible by --encoder-attention-heads 5"),
        (("--decoder-layers", "0"), "--decoder-layers must be at least 1"),
        (("--encoder-embed-dim", "0"), "--encoder-embed-dim must be at least 1, not 0"),
        (("--adaptive-softmax-cutoff", "20,10"), "cutoff 20,10: give numbers of words that grow"),
        (("--adaptive-softmax-cutoff", "10,99"), "cutoff 99: the target vocabulary has 4"),
        (
            ("--adaptive-softmax-cutoff", "10", "--adaptive-softmax-factor", "0"),
            "--adaptive-softmax-factor must be above 0, not 0",
        ),
        (("--adaptive-softmax-cutoff", "10", "--tie-adaptive-weights"), "ties them to those of"),
        (
            ("--share-decoder-input-output-embed", "--decoder-output-dim", "16"),
            "--share-decoder-input-output-embed needs --decoder-output-dim 32, the size of the emb",
        ),
        (
            ("--share-all-embeddings", "--decoder-embed-dim", "16"),
            "--share-all-embeddings requires --encoder-embed-dim to match --decoder-embed-dim",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    build: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(*options)


def test_unknown_init_type_is_refused_outside_the_command_line(
    parse: Callable[..., Any], task: Any
) -> None:
    model = Namespace(**vars(parse().model))
    model.init_type = "magic"
    with pytest.raises(UsageError, match=r"--init-type magic is unknown; choose from admin,"):
        task.build_model(model)


@pytest.mark.parametrize("name", ["scale_attn", "scale_heads", "scale_fc", "scale_resids"])
def test_options_that_only_yaml_can_set_are_refused_too(
    parse: Callable[..., Any], task: Any, name: str
) -> None:
    model = Namespace(**vars(parse().model), **{name: True})
    with pytest.raises(UsageError, match=f"does not support --{name.replace('_', '-')}"):
        task.build_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_mask_hides_keys_from_queries_of_the_encoder(
    build: Callable[..., Any], dtype: torch.dtype
) -> None:
    """fairseq's argument `attn_mask`, nonzero where a query (row) must not see a key."""
    layer = build().eval().to(dtype).encoder.layers[0]
    x, mask = torch.randn(5, 2, 32).to(dtype), torch.zeros(5, 5)
    mask[1, 3] = 1
    changed = x.clone()
    changed[3] += 1
    before, after = layer(x, None, mask), layer(changed, None, mask)
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [False, True, False, False, False] and before.isfinite().all()


def test_model_without_encoder_attention_runs(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    model = build("--no-cross-attention")
    assert [name for name, _ in model.residuals() if "encoder_attn" in name] == []
    assert torch.isfinite(model(**batch["net_input"])[0]).all()


def test_another_layer_than_the_aligned_one_can_be_asked_for(
    build: Callable[..., Any], batch: Any
) -> None:
    aligned = ("--decoder-layers", "3", "--alignment-layer", "0", "--full-context-alignment")
    model = build(*STILL, *aligned).eval()

    def attention(**options: Any) -> torch.Tensor:
        return model(**batch["net_input"], **options)[1]["attn"][0]

    asked = attention(alignment_layer=2)
    assert torch.equal(asked, attention(alignment_layer=2, features_only=True))
    assert not torch.allclose(asked, attention())


@pytest.mark.parametrize("wanted", [False, True])
def test_outputs_of_encoder_layers_are_kept_only_if_asked_for(
    build: Callable[..., Any], batch: Any, wanted: bool
) -> None:
    encoder = build(*STILL, "--encoder-layers", "5").eval().encoder
    outputs: list[weakref.ref] = []
    kept: list[int] = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(
            lambda *_: kept.append(sum(output() is not None for output in outputs))
        )
        layer.register_forward_hook(lambda *given: outputs.append(weakref.ref(given[-1])))
    source = {name: batch["net_input"][name] for name in ("src_tokens", "src_lengths")}
    with torch.no_grad():
        found = encoder(**source, return_all_hiddens=wanted)
    assert kept == ([0, 1, 2, 3, 4] if wanted else [0, 1, 1, 1, 1])
    assert len(found["encoder_states"]) == (6 if wanted else 0)


@pytest.mark.parametrize(
    "options", [(), ("--residual-attention", "all")], ids=["plain", "residual"]
)
def test_training_goes_on_after_evaluation_in_inference_mode(
    build: Callable[..., Any], task: Any, options: tuple[str, ...]
) -> None:
    """The causal mask is cached, and no backward pass may keep a tensor of inference mode."""
    model = build(*STILL, *options)
    dataset = task.dataset("train")
    sample = dataset.collater([dataset[0]])  # no padding, which would make another mask
    with torch.inference_mode():
        expected = model.eval()(**sample["net_input"])[0]
    found = model.train()(**sample["net_input"])[0]
    found.sum().backward()
    torch.testing.assert_close(found.detach(), expected.clone())


def test_shared_embeddings_need_a_joined_dictionary(parse: Callable[..., Any], task: Any) -> None:
    import copy

    other = copy.copy(task)
    other.tgt_dict = copy.deepcopy(task.tgt_dict)
    other.tgt_dict.add_symbol("only-here")
    with pytest.raises(UsageError, match="--share-all-embeddings needs data with a joined"):
        other.build_model(parse("--share-all-embeddings").model)
    with pytest.raises(UsageError, match="--merge-src-tgt-embed: the data has a dictionary for"):
        other.build_model(parse("--merge-src-tgt-embed").model)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--residual-attention", "all"),
        ("--init-type", "rezero"),
        ("--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before"),
        ("--no-cross-attention",),
    ],
    ids=lambda options: " ".join(options) or "post-LN",
)
def test_beam_search_scores_equal_full_decoding(
    build: Callable[..., Any], task: Any, batch: dict[str, Any], options: tuple[str, ...]
) -> None:
    model = build("--share-all-embeddings", "--layernorm-embedding", *options).eval()
    randomise(model, 1, also=("omega", "alpha"))
    generator = task.build_generator([model], Namespace(beam=3, max_len_b=8))
    pad = task.target_dictionary.pad()
    hypotheses = generator.generate([model], batch)
    for row in (0, 7):
        source = batch["net_input"]["src_tokens"][row : row + 1]
        lengths = batch["net_input"]["src_lengths"][row : row + 1]
        for hypothesis in hypotheses[row]:
            tokens = hypothesis["tokens"]
            assert (tokens != pad).all()
            previous = torch.cat([tokens[-1:], tokens[:-1]])[None]  # </s> first, as fairseq
            logits = model(source, lengths, previous)[0]
            lprobs = logits.log_softmax(-1)[0].gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(
                hypothesis["positional_scores"], lprobs, rtol=1e-4, atol=1e-4
            )
