"""RealFormer: the chain of scores through whole models, against the reference and in every mode."""

import copy
import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.errors import UsageError
from admin_nmt.modules.dropout import Dropout
from admin_nmt.modules.score_chain import LayerOutput, ScoreChain
from admin_nmt.modules.walk import all_layers
from tests.reference import transformer as reference
from tests.reference.residual_attention import naive
from tests.support.models import (
    one_sentence,
    population_variance,
    random_omegas,
    randomise,
    stock_state,
)

DEPTH = ("--encoder-layers", "3", "--decoder-layers", "3")
ALL = ("--residual-attention", "all")


def sharpen(model: Any) -> None:
    """Scores of size 1: at the initial weights attention is almost uniform and hides mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("qkv_proj.weight", "q_proj.weight", "kv_proj.weight")):
                parameter.mul_(2)


@pytest.fixture
def naive_operation(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Calling it puts the twin in place of the operation, for models without dropout."""

    def twin(*args: Any, layers: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        return naive(*args, layers)

    def replace() -> None:
        where = "admin_nmt.modules.residual_attention.residual_attention"
        monkeypatch.setattr(where, lambda *args, **options: twin(*args, **options)[:2])
        monkeypatch.setattr(f"{where}_with_weights", twin)

    return replace


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("kinds", ["all", "encoder", "decoder", "cross", "encoder cross"])
def test_logits_equal_the_float64_reference(
    build: Callable[..., Any], batch: dict[str, Any], kinds: str, reduce: str
) -> None:
    model = build(
        "--share-all-embeddings", *DEPTH, "--residual-attention", kinds,
        "--residual-attention-reduce", reduce,
    ).eval()  # fmt: skip
    randomise(model, 1)
    sharpen(model)
    omegas = random_omegas(model, 1)
    net_input = batch["net_input"]
    with torch.no_grad():
        logits = model(**net_input)[0]
    pad = model.encoder.padding_idx

    def residual(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        return omegas.get(name, torch.ones(())) * shortcut + branch

    words = ("encoder", "decoder", "cross") if kinds == "all" else kinds.split()
    for row in (0, 10):
        source = [t for t in net_input["src_tokens"][row].tolist() if t != pad]
        target = [t for t in net_input["prev_output_tokens"][row].tolist() if t != pad]
        chains = {word: reference.Chain(mean=reduce == "mean") for word in words}
        expected = reference.forward(
            stock_state(model), source, target, 4, (3, 3), pad, residual, chains
        )
        found = logits[row, : len(target)].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def loss_and_gradients(model: Any, batch: dict[str, Any], seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    logits, extra = model(**batch["net_input"])
    loss = logits.square().mean() + 10 * extra["attn"][0].square().mean()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "attn": extra["attn"][0].detach(), **gradients}


@pytest.mark.parametrize("options", [(), ("--encoder-normalize-before", "--init-type", "default")])
def test_values_weights_and_gradients_equal_the_naive_carry(
    build: Callable[..., Any],
    batch: dict[str, Any],
    naive_operation: Callable[[], None],
    options: tuple[str, ...],
) -> None:
    """Also through the weights that alignment losses differentiate."""
    model = build(*DEPTH, *ALL, *options, "--dropout", "0").double()
    sharpen(model)
    found = loss_and_gradients(model, batch)
    naive_operation()
    expected = loss_and_gradients(model, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("heads", [None, 1])
def test_alignment_layers_and_heads_come_out(
    build: Callable[..., Any],
    batch: dict[str, Any],
    naive_operation: Callable[[], None],
    heads: int | None,
) -> None:
    model = build(*DEPTH, *ALL).eval()
    sharpen(model)
    source = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths")}
    options = {"alignment_layer": 1, "alignment_heads": heads, "full_context_alignment": True}

    def attention() -> Tensor:
        memory = model.encoder(**source)
        previous = batch["net_input"]["prev_output_tokens"]
        return model.decoder(previous, encoder_out=memory, **options)[1]["attn"][0]

    found = attention()
    naive_operation()
    torch.testing.assert_close(found, attention(), rtol=1e-5, atol=1e-6)
    assert found.sum(-1).allclose(torch.ones(()))


def test_plain_checkpoint_loads_and_one_layer_is_plain_attention(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    one = ("--encoder-layers", "1", "--decoder-layers", "1")
    plain, ours = build(*one).eval(), build(*one, *ALL, seed=2).eval()
    assert plain.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(plain.state_dict())
    torch.testing.assert_close(
        ours(**batch["net_input"])[0], plain(**batch["net_input"])[0], rtol=1e-5, atol=1e-6
    )
    deep, deep_ours = build(*DEPTH).eval(), build(*DEPTH, *ALL, seed=2).eval()
    deep_ours.load_state_dict(deep.state_dict())
    change = deep_ours(**batch["net_input"])[0] - deep(**batch["net_input"])[0]
    assert change.abs().max() > 1e-4  # the chain does something


@pytest.mark.parametrize("offload", [(), ("--offload-activations",)])
def test_activation_checkpointing_carries_the_chain(
    build: Callable[..., Any], batch: dict[str, Any], offload: tuple[str, ...]
) -> None:
    options = (*DEPTH, *ALL, "--attention-dropout", "0.2", "--init-type", "default")
    plain = build(*options)
    checkpointed = build(*options, "--checkpoint-activations", *offload)
    expected = loss_and_gradients(plain.train(), batch)
    found = loss_and_gradients(checkpointed.train(), batch)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_layer_drop_leaves_a_chain_of_the_layers_that_ran(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    drop = ("--encoder-layerdrop", "0.5", "--decoder-layerdrop", "0.5")
    sizes = ("--encoder-layers", "4", "--decoder-layers", "4", "--dropout", "0", *ALL)
    model = build(*sizes, *drop).train()
    sharpen(model)
    ran: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for stack in ran:
        for number in range(4):
            getattr(model, stack).layers[number].register_forward_pre_hook(
                lambda *_, stack=stack, number=number: ran[stack].append(number)
            )
    torch.manual_seed(2)
    dropped = model(**batch["net_input"])[0]
    assert all(0 < len(numbers) < 4 for numbers in ran.values()), ran
    kept = {stack: list(numbers) for stack, numbers in ran.items()}
    for stack, numbers in kept.items():
        layers = getattr(model, stack).layers
        for number in sorted(set(range(4)) - set(numbers), reverse=True):
            del layers[number]
    torch.testing.assert_close(model.eval()(**batch["net_input"])[0], dropped)


def test_models_print_as_plain_ones_do(build: Callable[..., Any]) -> None:
    plain, ours = repr(build(*DEPTH)), repr(build(*DEPTH, *ALL))
    for side in ("Encoder", "Decoder"):
        ours = ours.replace(f"ResidualAttention{side}Layer", f"AdminTransformer{side}Layer")
    renamed = ours.replace("ScoreChain", "ModuleList").replace("ResidualAttention", "X")
    assert renamed == plain.replace("MultiheadAttention", "X")


@pytest.mark.parametrize("options", [(), ("--checkpoint-activations",)])
def test_layers_of_a_class_return_one_type(build: Callable[..., Any], options: Any) -> None:
    x, memory = torch.randn(5, 2, 32), torch.randn(3, 2, 32)
    plain, ours = build(*options), build(*ALL, *options)
    assert isinstance(all_layers(plain.encoder.layers)[0](x, None), torch.Tensor)
    out, attn, state = all_layers(plain.decoder.layers)[0](x, memory, need_attn=True)
    assert out.shape == x.shape and attn.shape == (2, 5, 3) and state is None
    for arguments, stack, cross in (((x, None), "encoder", None), ((x, memory), "decoder", 3)):
        layers = getattr(ours, stack).layers
        output = LayerOutput(*layers[0](*arguments))  # a plain tuple under checkpointing
        assert output.x.shape == x.shape and output.self_scores.shape == (2, 4, 5, 5)
        assert cross is None or output.cross_scores.shape == (2, 4, 5, cross)
        # The chain gives fairseq's stacks what they take from a plain layer.
        of_chain = next(iter(layers))(*arguments)
        assert isinstance(of_chain, torch.Tensor) if cross is None else len(of_chain) == 3


def test_dropouts_are_named_as_in_plain_models(build: Callable[..., Any]) -> None:
    """`--retain-dropout-modules` names them."""
    plain, ours = (
        [module.module_name for module in model.modules() if isinstance(module, Dropout)]
        for model in (build(), build(*ALL))
    )
    assert ours == plain and "AdminTransformerEncoderLayer" in plain


def test_two_passes_before_one_backward_keep_apart(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    model = build(*DEPTH, *ALL, "--dropout", "0")
    sharpen(model)
    model(**batch["net_input"])[0].square().mean().backward()
    once = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    first, second = (model(**batch["net_input"])[0] for _ in range(2))
    assert torch.equal(first, second)
    (first.square().mean() + second.square().mean()).backward()
    for name, parameter in model.named_parameters():
        if name in once:
            torch.testing.assert_close(
                parameter.grad, 2 * once[name], rtol=1e-4, atol=1e-7, msg=name
            )


@pytest.mark.parametrize("dropout", ["0", "0.3"])
@pytest.mark.parametrize("options", [(), ALL])
def test_padding_on_the_left_leaves_no_trace(
    build: Callable[..., Any], task: Any, options: tuple[str, ...], dropout: str
) -> None:
    """Queries at padding then see no key at all: finite everywhere, equal to fairseq's elsewhere."""
    pad = task.target_dictionary.pad()
    tokens = torch.tensor([[pad, pad, 2, 5, 6], [2, 7, 8, 9, 10]])
    model = build(*DEPTH, *options, "--attention-dropout", dropout, "--dropout", "0")
    sharpen(model)
    source = {"src_tokens": tokens, "src_lengths": torch.tensor([3, 5])}
    for training in (False, True):
        logits = model.train(training)(**source, prev_output_tokens=tokens)[0]
        assert torch.isfinite(logits).all()
        model.zero_grad()
        logits[tokens.ne(pad)].square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    right = torch.tensor([[2, 5, 6, pad, pad]])
    alone = model.eval()(
        src_tokens=tokens[:1], src_lengths=torch.tensor([3]), prev_output_tokens=right
    )
    expected = model(**source, prev_output_tokens=tokens)[0][:1, 2:]
    torch.testing.assert_close(alone[0][:, :3], expected, rtol=1e-4, atol=1e-5)


def test_backward_hooks_of_modules_may_watch(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    """They hand out views, which must not be overwritten: neither the scores nor what ReLU reads."""
    model = build(*DEPTH, *ALL, "--dropout", "0")
    sharpen(model)
    expected = loss_and_gradients(model, batch)
    seen, inner = [], []
    for stack in (model.encoder, model.decoder):
        for number in range(3):
            layer = stack.layers[number]
            for module in (layer, layer.self_attn, layer.fc1):
                module.register_full_backward_hook(lambda *_: seen.append(1))
            layer.fc1.register_forward_hook(lambda _m, _i, out: inner.append(out))
    found = loss_and_gradients(model, batch)
    assert len(seen) == 18 and all((out < 0).any() for out in inner)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_a_slice_of_the_layers_is_a_chain(build: Callable[..., Any]) -> None:
    layers = build(*DEPTH, *ALL, "--encoder-layerdrop", "0.5").encoder.layers
    assert type(layers[1:]) is type(layers) and len(layers[1:]) == 2 and layers[1:][0] is layers[1]
    assert (layers[1:].stack, layers[1:].p) == ("encoder", 0.5)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_steps_with_a_cache_equal_the_whole_with_reordered_beams(
    build: Callable[..., Any], batch: dict[str, Any], reduce: str
) -> None:
    """Teacher-forced steps of the decoder: two beams of each of two sentences change places, then one
    sentence is finished."""
    model = build(*DEPTH, *ALL, "--residual-attention-reduce", reduce).eval()
    sharpen(model)
    net_input = batch["net_input"]
    memory = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    rows = [i for i, n in enumerate(net_input["prev_output_tokens"].ne(1).sum(1)) if n >= 5][:4]
    memory = model.encoder.reorder_encoder_out(memory, torch.tensor(rows[:2]).repeat_interleave(2))
    tokens = net_input["prev_output_tokens"][torch.tensor(rows), :5]
    state: dict = {}
    for step in range(5):
        if step >= 2:
            swap = torch.tensor({2: [1, 0, 3, 3], 3: [3, 2], 4: [1, 1]}[step])
            memory = model.encoder.reorder_encoder_out(memory, swap)
            model.decoder.reorder_incremental_state_scripting(state, swap)
            tokens = tokens[swap]
        seen = tokens[:, : step + 1]
        found = model.decoder(seen, encoder_out=memory, incremental_state=state)[0][:, -1]
        expected = model.decoder(seen, encoder_out=memory)[0][:, -1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_profile_sees_the_carried_scores(build: Callable[..., Any], batch: dict[str, Any]) -> None:
    """RealFormer x ADMIN: the recurrence of the omegas through a reference with chains."""
    from admin_nmt.initialization.profile import measure_profile

    drop = ("--encoder-layerdrop", "0.9")
    model = build("--dropout", "0", "--share-all-embeddings", *DEPTH, *ALL, *drop)
    randomise(model, 5)
    sharpen(model)
    pad = model.encoder.padding_idx
    sample = one_sentence(batch, 3, pad)
    profile = measure_profile(model, [sample], seed=1)
    assert model.encoder.layers.p == 0.9
    results = {}
    for carried in (True, False):
        omega = {"encoder": 1.0, "decoder": 1.0}
        expected: dict[str, float] = {}

        def residual(
            name: str, shortcut: Tensor, branch: Tensor, omega=omega, expected=expected
        ) -> Tensor:
            stack = name.split(".")[0]
            expected[name] = omega[stack]
            scaled = omega[stack] * shortcut
            omega[stack] = math.sqrt(population_variance(scaled) + population_variance(branch))
            return scaled + branch

        words = ("encoder", "decoder", "cross") if carried else ()
        source = sample["net_input"]["src_tokens"][0].tolist()
        target = sample["net_input"]["prev_output_tokens"][0].tolist()
        chains = {word: reference.Chain() for word in words}
        reference.forward(stock_state(model), source, target, 4, (3, 3), pad, residual, chains)
        results[carried] = expected
    assert list(profile.sublayers) == list(results[True])
    for name, value in results[True].items():
        assert profile.sublayers[name].omega == pytest.approx(value, rel=1e-4), name
    last = "encoder.layers.2.ffn_residual"
    assert abs(results[True][last] - results[False][last]) > 1e-3 * results[True][last]


def test_deep_half_precision_is_near_float32(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    """60 layers: as near to float32 as a plain model of the same type, in the median of three seeds
    (one model can be twice as far, depending on the processor's rounding)."""

    def errors(kinds: str, seed: int) -> list[float]:
        """Of float16 and bfloat16."""
        model = build(
            "--encoder-layers", "60", "--residual-attention", kinds,
            "--residual-attention-reduce", "sum", "--init-type", "default", seed=seed,
        ).eval()  # fmt: skip
        with torch.no_grad():
            expected = model(**batch["net_input"])[0]
            found = [
                copy.deepcopy(model).to(dtype)(**batch["net_input"])[0].float()
                for dtype in (torch.float16, torch.bfloat16)
            ]
        return [((half - expected).norm() / expected.norm()).item() for half in found]

    pairs = [(errors("all", seed), errors("none", seed)) for seed in (1, 2, 3)]
    for number in range(2):
        ratios = [carried[number] / plain[number] for carried, plain in pairs]
        assert sorted(ratios)[1] < 1.5, ratios


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--residual-attention", "encoder,self"), "--residual-attention: 'self' is unknown; give"),
        (("--residual-attention", "all,cross"), "--residual-attention: 'all' is unknown; give"),
        ((*ALL, "--cross-self-attention"), "does not support --cross-self-attention"),
        ((*ALL, "--quant-noise-pq", "0.1"), "does not support --quant-noise-pq"),
        (
            ("--residual-attention", "cross", "--no-cross-attention"),
            "--residual-attention cross has nothing to act on: --no-cross-attention",
        ),
        (("--encoder-attention-heads", "0"), "--encoder-attention-heads must be at least 1, not 0"),
        (("--decoder-attention-heads", "-4"), "--decoder-attention-heads must be at least 1"),
        (("--dropout", "-0.1"), "--dropout must be at least 0 and less than 1, not -0.1"),
        (("--attention-dropout", "1"), "--attention-dropout must be at least 0 and less than 1"),
        (("--activation-dropout", "1.5"), "--activation-dropout must be at least 0 and less"),
        (("--relu-dropout", "nan"), "--relu-dropout must be at least 0 and less than 1, not nan"),
        (("--adaptive-softmax-dropout", "-1"), "--adaptive-softmax-dropout must be at least 0"),
        (("--encoder-layerdrop", "1"), "--encoder-layerdrop must be at least 0 and less than 1"),
        (("--decoder-layerdrop", "-1"), "--decoder-layerdrop must be at least 0 and less than 1"),
    ],
)
def test_bad_values_are_refused_by_name(
    build: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(*options)


@pytest.mark.parametrize(
    ("value", "chained"),
    [
        (["encoder"], (True, False)),
        ("encoder,cross", (True, True)),
        ("decoder", (False, True)),
        ([], (False, False)),
        (None, (False, False)),
        ("none", (False, False)),
    ],
)
def test_lists_from_yaml_and_strings_name_the_same(
    parse: Callable[..., Any], task: Any, value: Any, chained: tuple[bool, bool]
) -> None:
    model = Namespace(**vars(parse().model))
    model.residual_attention = value
    built = task.build_model(model)
    stacks = (built.encoder, built.decoder)
    assert tuple(isinstance(stack.layers, ScoreChain) for stack in stacks) == chained


def test_layers_with_more_heads_than_the_layer_below_are_refused(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    """There is nothing below to add their scores to; fewer heads go on with the first ones."""
    heads = "--heads-per-layer"
    assert torch.isfinite(build(*DEPTH, *ALL, heads, "E:4,3,3")(**batch["net_input"])[0]).all()
    with pytest.raises(UsageError, match=r"more heads than the layer below, whose .* 4,2,3"):
        build(*DEPTH, *ALL, heads, "E:4,2,3")


@pytest.mark.parametrize("arch", ["admin_realformer", "admin_realformer_iwslt_de_en_60l_12l"])
def test_architectures_are_post_ln_with_all_means(parse: Callable[..., Any], arch: str) -> None:
    cfg = parse("--arch", arch).model
    assert (cfg.init_type, cfg.residual_attention) == ("default", "all")
    assert cfg.residual_attention_reduce == "mean"
    assert not cfg.encoder_normalize_before
    changed = parse("--arch", arch, "--init-type", "admin", "--residual-attention", "cross").model
    assert (changed.init_type, changed.residual_attention) == ("admin", "cross")
