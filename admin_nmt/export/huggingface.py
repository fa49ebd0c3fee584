"""A folder for the library `transformers`: fairseq's Transformer as its class FSMT.

FSMT was made for fairseq's WMT19 models: post-LN, fairseq's sinusoids counted from the padding index,
scaled embeddings, source and target dictionaries of their own. (Marian, the other candidate, counts
positions from 0 and shares one dictionary.) ADMIN and DeepNorm are folded first; removed heads are
filled up with zeros.

config.json, generation_config.json, model.safetensors    the model
tokenizer_config.json, vocab-src.json, vocab-tgt.json, merges.txt    the tokenizer
dict.LANG.txt, codes, preparation.json    the text pipeline of this package
README.md, huggingface-export.json    what it is, and where it is from
"""

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
from admin_nmt.checkpoints.direction import require_fitting_vocabulary
from admin_nmt.data import bpe
from admin_nmt.errors import UserError
from admin_nmt.export.bundle import describe, write_manifest, write_text_files
from admin_nmt.export.plain_transformer import as_plain
from admin_nmt.export.text import Text, TextOptions, data_folder, load_text
from admin_nmt.files import atomic_folder, atomic_write
from admin_nmt.installed import require_package
from admin_nmt.json_files import write_json
from admin_nmt.models.loading import build_model, random_batch
from admin_nmt.models.settings import model_settings
from admin_nmt.outputs import require_new_folder

MANIFEST = "huggingface-export.json"
DOCUMENT, VERSION = "huggingface export", 1
#: Largest difference of float32 logits from fairseq's, relative to the largest logit: rounding in
#: another order leaves about 1e-6.
TOLERANCE = 1e-4
#: fairseq's name of an activation function -> that of transformers.
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "tanh": "tanh", "swish": "silu"}
_BPE_CONTINUES = "@@"
_WORD_ENDS = "</w>"


def import_transformers() -> Any:
    """The module `transformers`.

    Raises:
        UserError: it is not installed, or does not load.
    """
    return require_package("transformers", "transformers>=5", "FSMTForConditionalGeneration")


def export_huggingface(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: TextOptions | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Fold a checkpoint where needed and write it as an FSMT model of `transformers`.

    The folder is made under a temporary name, loaded, compared with the checkpoint on random
    sentences and then renamed: it is whole or absent.

    Args:
        checkpoint: of `admin_transformer` or fairseq's own `transformer`.
        data: the folder it was trained on.
        output: the folder to make.
        options: what `data` does not say about the text (no `preparation.json`).
        force: replace a folder of that name that was made here.

    Returns:
        what the folder says about itself; `raw_text` is whether FSMT's tokenizer prepares raw text
        as the training text was.

    Raises:
        UserError: bad input, a model that FSMT cannot compute, an output that exists, or a written
            model that does not compute what the checkpoint does.
    """
    output = Path(output)
    require_new_folder(output, force, MANIFEST)
    transformers = import_transformers()
    opened = Checkpoint.open(checkpoint)
    weights, settings = _plain_model(opened)
    text = load_text(data, opened.languages, options)
    _require_bpe(text)
    folder = data_folder(data)
    require_fitting_vocabulary(opened, folder, text.source_lang, text.target_lang)
    with atomic_folder(output) as made, _without_progress_bars(transformers):
        _write_model(transformers, weights, settings, text, made)
        _write_tokenizer(text, settings, folder, made)
        write_text_files(text, folder, made)
        content = describe(opened, settings, text, "float32")
        content["versions"]["transformers"] = transformers.__version__
        content["raw_text"] = prepares_raw_text(text)
        content["verification"] = _verify(transformers, weights, settings, made, opened.path)
        write_manifest(made, MANIFEST, (DOCUMENT, VERSION), content, _readme(content))
    return content


def prepares_raw_text(text: Text) -> bool:
    """Whether FSMT's tokenizer makes the subwords of `text` out of raw text, but for typographic quotes and
    characters that cannot be seen: it normalises, splits hyphens off, and does both by the rules of the
    languages that it is told. It knows BPE codes of version 0.2 only."""
    source, target = text.pipeline.source, text.pipeline.target
    return (
        source.normalize
        and source.aggressive_hyphens
        and not source.substitute
        and (source.language, target.language) == (text.source_lang, text.target_lang)
        and bpe.load(text.pipeline.subwords.path).version == (0, 2)
    )


@contextmanager
def _without_progress_bars(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _plain_model(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], Namespace]:
    """As `as_plain`; refuses what FSMT cannot compute before it folds."""
    checkpoint.require_family(TRANSFORMERS, "be folded or exported")
    _require_fitting(checkpoint.path, model_settings(checkpoint))
    return as_plain(checkpoint)


def _require_bpe(text: Text) -> None:
    """Refuse subwords that FSMT's tokenizer does not know.

    Raises:
        UserError: with the way around.
    """
    if not text.pipeline.subwords.moses:
        raise UserError(
            "FSMT's tokenizer of transformers knows BPE codes only, and this data was prepared with "
            "SentencePiece: export it with --format ctranslate2"
        )


def _require_fitting(path: Path, settings: Namespace) -> None:
    """Refuse what FSMT cannot compute.

    Raises:
        UserError: with the option.
    """
    widths = settings.encoder_embed_dim, settings.decoder_embed_dim
    reasons = {
        "--encoder-normalize-before, --decoder-normalize-before (pre-LN)": (
            settings.encoder_normalize_before or settings.decoder_normalize_before
        ),
        "--layernorm-embedding": settings.layernorm_embedding,
        "--encoder-learned-pos, --decoder-learned-pos": (
            settings.encoder_learned_pos or settings.decoder_learned_pos
        ),
        "--no-token-positional-embeddings": settings.no_token_positional_embeddings,
        f"--encoder-embed-dim {widths[0]} and --decoder-embed-dim {widths[1]} differ": (
            widths[0] != widths[1]
        ),
        "--decoder-input-dim, --decoder-output-dim": (
            {settings.decoder_input_dim, settings.decoder_output_dim} != {widths[1]}
        ),
        "--adaptive-softmax-cutoff": settings.adaptive_softmax_cutoff is not None,
        "--no-cross-attention": settings.no_cross_attention,
        f"--activation-fn {settings.activation_fn}": settings.activation_fn not in _ACTIVATIONS,
    }
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f"FSMT of transformers cannot compute {path}: {reason}")


def _write_model(
    transformers: Any, weights: Mapping[str, Tensor], settings: Namespace, text: Text, made: Path
) -> None:
    positions = max(settings.max_source_positions, settings.max_target_positions)
    generation = {
        "num_beams": 5,
        "length_penalty": 1.0,
        "max_length": settings.max_target_positions,
    }
    config = transformers.FSMTConfig(
        langs=[text.source_lang, text.target_lang],
        src_vocab_size=len(weights["encoder.embed_tokens.weight"]),
        tgt_vocab_size=len(weights["decoder.embed_tokens.weight"]),
        activation_function=_ACTIVATIONS[settings.activation_fn],
        d_model=settings.encoder_embed_dim,
        max_position_embeddings=positions,
        encoder_ffn_dim=settings.encoder_ffn_embed_dim,
        encoder_layers=settings.encoder_layers,
        encoder_attention_heads=settings.encoder_attention_heads,
        decoder_ffn_dim=settings.decoder_ffn_embed_dim,
        decoder_layers=settings.decoder_layers,
        decoder_attention_heads=settings.decoder_attention_heads,
        dropout=settings.dropout,
        attention_dropout=settings.attention_dropout,
        activation_dropout=settings.activation_dropout,
        scale_embedding=not settings.no_scale_embedding,
        tie_word_embeddings=bool(settings.share_all_embeddings),
    )
    model = transformers.FSMTForConditionalGeneration(config)
    own = {f"model.{name}": value for name, value in weights.items() if "version" not in name}
    # FSMT keeps its sinusoids as weights; they are not in a checkpoint of fairseq's.
    own |= {name: value for name, value in model.state_dict().items() if "positions" in name}
    model.load_state_dict(own)
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(made)


def _write_tokenizer(text: Text, settings: Namespace, folder: Path, made: Path) -> None:
    for side, language in (("src", text.source_lang), ("tgt", text.target_lang)):
        write_json(made / f"vocab-{side}.json", _vocabulary(folder / f"dict.{language}.txt"))
    codes = text.pipeline.subwords.path.read_text(encoding="utf-8").split("\n")
    merges = [line for line in codes if line.strip() and not line.startswith("#version")]
    with atomic_write(made / "merges.txt") as stream:
        stream.write("".join(f"{line}\n" for line in merges))
    write_json(
        made / "tokenizer_config.json",
        {
            "tokenizer_class": "FSMTTokenizer",
            "langs": [text.source_lang, text.target_lang],
            "do_lower_case": text.pipeline.source.lowercase,
            "model_max_length": settings.max_source_positions,
        },
    )


def _vocabulary(path: Path) -> dict[str, int]:
    """Symbols of a dictionary as FSMT writes them: the end of a word is marked, not its inside.

    Raises:
        UserError: two symbols become one.
    """
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(path))
    result: dict[str, int] = {}
    for index, symbol in enumerate(dictionary.symbols):
        if index < dictionary.nspecial:
            name = symbol
        elif symbol.endswith(_BPE_CONTINUES):
            name = symbol.removesuffix(_BPE_CONTINUES)
        else:
            name = symbol + _WORD_ENDS
        if name in result:
            raise UserError(f"{path}: {symbol} would have the name of another symbol, {name}")
        result[name] = index
    return result


def _verify(
    transformers: Any,
    weights: dict[str, Tensor],
    settings: Namespace,
    made: Path,
    path: Path,
) -> dict[str, Any]:
    """Load what was written and compare its logits with fairseq's.

    Raises:
        UserError: they differ by more than rounding can explain.
    """
    theirs = transformers.FSMTForConditionalGeneration.from_pretrained(
        str(made), local_files_only=True
    ).eval()
    ours = build_model(settings, weights, "transformer")
    batch = random_batch(settings, weights)
    source = batch["src_tokens"]
    with torch.no_grad():
        expected = ours(**batch)[0]
        found = theirs(
            input_ids=source,
            attention_mask=source.ne(1).long(),
            decoder_input_ids=batch["prev_output_tokens"],
            use_cache=False,
        ).logits
    difference, magnitude = float((found - expected).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE * max(magnitude, 1.0):
        raise UserError(
            f"the exported model is not {path}: logits differ by {difference:.3g}, of at most "
            f"{magnitude:.3g} (transformers {transformers.__version__})"
        )
    return {"largest_difference": difference, "largest_logit": magnitude}


_RAW = """# Of typographic quotes, tabs and invisible characters this tokenizer makes other tokens than the training
# text had.
text = ["..."]
batch = tokenizer(text, return_tensors="pt", padding=True)
"""
_TOKENS = """# This tokenizer always normalises punctuation and splits hyphens off, by the rules of the language that it
# is told, and knows newer BPE codes only. The training text was prepared otherwise (preparation.json): give
# it subwords, here those that admin_nmt makes of raw text.
from admin_nmt.data.text_pipeline import TextPipeline

pipeline = TextPipeline.load(".")
ids = [
    tokenizer.convert_tokens_to_ids(
        [s.removesuffix("@@") if s.endswith("@@") else s + "</w>" for s in pipeline.encode(line).split()]
    ) + [tokenizer.sep_token_id]
    for line in ["..."]
]
batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
"""


def _readme(content: Mapping[str, Any]) -> str:
    checkpoint = content["checkpoint"]
    languages = json.dumps([content["source_lang"], content["target_lang"]])
    return f"""# {content["source_lang"]}-{content["target_lang"]} translation model

An FSMT model for `transformers` (`pip install transformers sacremoses torch`), languages {languages}, exported by
admin-nmt {content["versions"]["admin-nmt"] or ""} from checkpoint `{checkpoint["file"]}` (architecture {checkpoint["architecture"]},
SHA-256 {checkpoint["sha256"]}). `{MANIFEST}` holds all settings and versions.

```python
from transformers import FSMTForConditionalGeneration, FSMTTokenizer

tokenizer = FSMTTokenizer.from_pretrained(".")
model = FSMTForConditionalGeneration.from_pretrained(".")
{_RAW if content["raw_text"] else _TOKENS}print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```
"""
