"""fairseq's generation does what its options say."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from fairseq import options, utils
from fairseq.search import DiverseBeamSearch
from fairseq.sequence_generator import SequenceGenerator

from admin_nmt.errors import UsageError


@pytest.fixture(scope="module")
def translate(build: Any, task: Any) -> Any:
    """`translate(batch, **options)`: the words of all hypotheses, sentence by sentence."""
    model = build().eval()

    def run(batch: dict[str, Any], **options: Any) -> list[list[list[int]]]:
        generator = SequenceGenerator([model], task.target_dictionary, max_len_b=12, **options)
        found = generator.generate([model], batch)
        return [[hypo["tokens"].tolist() for hypo in hypos] for hypos in found]

    return run


def repeated(words: list[int]) -> bool:
    pairs = list(itertools.pairwise(words))
    return len(pairs) > len(set(pairs))


def test_no_ngram_comes_twice(translate: Any, batch: dict[str, Any]) -> None:
    def hypotheses(size: int) -> list[list[int]]:
        found = translate(batch, beam_size=3, no_repeat_ngram_size=size, min_len=8)
        return [words for hypos in found for words in hypos]

    assert any(map(repeated, hypotheses(0)))
    assert not any(map(repeated, hypotheses(2)))


def test_groups_of_beams_do_not_depend_on_the_numbers_of_sentences(
    translate: Any, task: Any, batch: dict[str, Any]
) -> None:
    search = {
        "beam_size": 4,
        "search_strategy": DiverseBeamSearch(task.target_dictionary, 2, 0.5),
    }
    numbered = batch | {"id": torch.arange(100, 100 + len(batch["id"])).flip(0)}
    anonymous = {name: value for name, value in batch.items() if name != "id"}
    found = translate(numbered, **search)
    assert found == translate(anonymous, **search)
    assert all(len(set(map(tuple, hypos))) > 1 for hypos in found)


def test_unknown_words_are_replaced_along_pairs() -> None:
    def replaced(alignment: Any) -> str:
        return utils.replace_unk("a <unk> b <unk>", "x y", alignment, {"y": "why"}, "<unk>")

    assert replaced([(0, 0), (1, 1), (1, 2), (0, 3)]) == "a why b x"
    assert replaced([0, 1, 1, 0]) == "a why b x"
    for nothing in (None, [], torch.empty(0)):
        with pytest.raises(UsageError, match="--replace-unk needs --print-alignment"):
            replaced(nothing)
    assert utils.replace_unk("a b", "x y", None, {}, "<unk>") == "a b"


def parsed(data: Path, *given: str, interactive: bool = False) -> Any:
    parser = options.get_generation_parser(interactive=interactive)
    return options.parse_args_and_arch(parser, [str(data), "--path", "model.pt", *given])


def test_shards_of_the_data(data_bin: Path) -> None:
    args = parsed(data_bin, "--num-shards", "3", "--shard-id", "2")
    assert (args.distributed_world_size, args.distributed_rank) == (3, 2)
    args = parsed(data_bin)
    assert (args.distributed_world_size, args.distributed_rank) == (1, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("--num-shards", "2", "--shard-id", "2"),
            "--shard-id 2: with --num-shards 2 it is 0 to 1",
        ),
        (("--constraints",), "--constraints is for fairseq-interactive"),
        (("--replace-unk",), "--replace-unk copies words of the text"),
    ],
)
def test_what_generate_cannot_do_is_refused(
    given: tuple[str, ...], message: str, data_bin: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        parsed(data_bin, *given)
    if given[0] != "--num-shards":
        assert parsed(data_bin, *given, interactive=True)
    assert parsed(data_bin, "--replace-unk", "--dataset-impl", "raw")


def test_fairseq_score_takes_sacrebleu(tmp_path: Path, program: Any) -> None:
    (tmp_path / "sys").write_text("the cat sat on the mat\na b c d e\n")
    (tmp_path / "ref").write_text("the cat sat on the mat\na b c d f\n")
    files = ["--sys", tmp_path / "sys", "--ref", tmp_path / "ref"]
    expected = sacrebleu.corpus_bleu(
        ["the cat sat on the mat", "a b c d e"], [["the cat sat on the mat", "a b c d f"]]
    )
    assert 50 < expected.score < 99
    said = program("fairseq-score", *files, "--sacrebleu").stdout
    assert said.splitlines()[-1] == expected.format()


def test_interactive_truncates_long_lines(task: Any) -> None:
    eos, long, short = task.source_dictionary.eos(), task.cfg.max_source_positions + 5, [5, 6]
    lines = [torch.tensor([*[7] * long, eos]), torch.tensor([*short, eos])]
    sizes = [len(line) for line in lines]
    assert task.build_dataset_for_inference(lines, sizes).src_sizes[0] == long + 1
    task.cfg.truncate_source = True
    try:
        dataset = task.build_dataset_for_inference(lines, sizes)
    finally:
        task.cfg.truncate_source = False
    assert dataset[0]["source"].tolist() == [7] * (long - 6) + [eos]
    assert dataset[1]["source"].tolist() == [*short, eos]
    assert dataset.src_sizes.tolist() == [task.cfg.max_source_positions, 3]
