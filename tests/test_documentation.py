"""Every command of every page is run here, or it is said here which test runs it or why none does.

Those that this file does not run as they stand are still read by the parsers of their programs, so
that an option which is renamed is renamed on the pages too. docs/results/ is left out
(`pages.RECORDS`); what its commands call is run in small by tests/studies, tests/benchmarks and the
tests of each command. The table of benchmarks/README.md is run by tests/benchmarks.
"""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

import docs_pictures
from admin_nmt.cli.main import build_parser, main
from tests.support.in_process import run_fairseq
from tests.support.pages import GUIDE, METHODS, READ, README, REPOSITORY, commands
from tests.support.recipes import compose

#: Commands that other tests run (or that CI itself is), by their first words; the first that fits counts.
RUN_ELSEWHERE = {
    "admin-nmt importance": "tests/pruning/test_commands.py",
    "admin-nmt prune": "tests/pruning/test_commands.py",
    "admin-nmt ablate": "tests/pruning/test_commands.py",
    "bash scripts/quickstart.sh": "tests/scripts/test_quickstart.py",
    "bash scripts/test.sh": ".ci/run",
    "bash scripts/install.sh": "tests/scripts/test_install.py",
    "bash .ci/run": "not run: runs this test",
    "pip install": "tests/test_packaging.py",
    "pip uninstall": "tests/test_packaging.py",
    "bash data_prep/": "tests/data/test_prepare_cli.py",
    "bash scripts/train-multi": "tests/distributed",
    "sbatch": "tests/distributed",
    "bash scripts/gpu-check.sh": "tests/gpu_check/test_gpu_check.py",
    "bash scripts/gpu_check/luggage.sh": "not run: downloads wheels",
    "bash scripts/": "tests/scripts/test_pipelines.py",
    "fairseq-hydra-train": "tests/configs",
    "admin-nmt extend-vocabulary": "tests/checkpoints/test_extend_vocabulary.py",
    "fairseq-train NEW-DATA": "tests/checkpoints/test_extend_vocabulary.py",
    "admin-nmt distill": "tests/synthetic_data/test_distill.py",
    "fairseq-train distilled/data-bin -s de -t en --finetune-from-model": "tests/pruning/test_commands.py",
    "admin-nmt export pruned/checkpoint_best.pt": "tests/export/test_bundle.py",
    "fairseq-train distilled/data-bin": "tests/synthetic_data/test_distill.py",
    "admin-nmt export checkpoint_best.pt DATA --quantization int8": "tests/synthetic_data/test_distill.py",
    "fairseq-train DATA --arch admin_transformer ... --label-smoothing": "tests/criterions/test_distillation_criterion.py",
    "admin-nmt backtranslate": "tests/synthetic_data/test_backtranslate.py",
    "fairseq-train mixed/data-bin": "tests/synthetic_data/test_backtranslate.py",
    "fairseq-train DATA -s en -t de --save-dir reverse": "tests/train/test_front_door.py",
    "admin-nmt export reverse/checkpoint_best.pt": "tests/conftest.py",
    "admin-nmt analyze DATA --path checkpoints/checkpoint_last.pt --gen-subset": "tests/analysis/test_attention_analysis.py",
    "admin-nmt report": "tests/report/test_report.py",
    "admin-nmt serve": "tests/export/test_served_model.py",
    "admin-nmt translate exported --input text.de --output text.en --alignments": "tests/export/test_alignments.py",
    "admin-nmt export checkpoints/average.pt DATA --output exported --alignment-layer": "tests/export/test_alignments.py",
    "fairseq-train guided": "tests/criterions/test_guided_alignment.py",
    "fairseq-preprocess": "tests/conftest.py",
    "cp -r prepared": "not run: copies files",
    "curl": "tests/export/test_served_model.py",
    "admin-nmt convert": "tests/interop/test_convert.py",
    "admin-nmt export checkpoints/average.pt DATA --format huggingface": "tests/export/test_pages.py",
}


def where_run(command: str) -> str | None:
    """What `RUN_ELSEWHERE` says of a command."""
    fitting = (where for prefix, where in RUN_ELSEWHERE.items() if command.startswith(prefix))
    return next(fitting, None)


#: What the tests below run as it stands: of the guide, of README's section, of the methods.
GUIDE_COMMANDS = [
    command
    for command in commands(GUIDE)
    if command.startswith(("fairseq-train ", "admin-nmt ")) and not where_run(command)
]
OWN_TEXT = README[README.index("## Your own text") :]
RUN_HERE = {*GUIDE_COMMANDS, *commands(OWN_TEXT), *commands("\n".join(METHODS.values()))}


@pytest.fixture
def run(program: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., None]:
    """Runs the words of a command; what there is a function for in this process, which has imported all
    it needs."""

    def run_words(*words: str) -> None:
        if words[0] == "admin-nmt":
            assert main(words[1:]) == 0, words
        elif words[0] == "fairseq-train":
            run_fairseq(*words)
        else:
            program(*words)

    return run_words


def named_by(command: str) -> str:
    """What a test that runs this command must name: a script, a subcommand of ours, a program."""
    words = command.split()
    if words[1].startswith("data_prep/"):
        return "data_prep"  # one test goes through the folder
    if words[0] in ("bash", "sbatch"):
        return Path(words[1]).stem
    return words[1] if words[0] == "admin-nmt" else words[0]


@cache
def text_of(path: Path) -> str:
    """A file, or the tests in a folder."""
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    return "".join(file.read_text(encoding="utf-8") for file in files)


COMMANDS = list(dict.fromkeys(commands(READ)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_run_somewhere(command: str) -> None:
    where = where_run(command)
    assert where or command in RUN_HERE, f"no test runs: {command}; see RUN_ELSEWHERE"
    script = re.match(r"(?:bash|sbatch) (\S+\.(?:sh|sbatch))", command)
    if script:
        subprocess.run(["bash", "-n", REPOSITORY / script[1]], check=True)
    if where and not where.startswith("not run: "):
        name = named_by(command)
        assert name in text_of(REPOSITORY / where), f"{command}: no {name!r} in {where}"


def test_what_is_run_elsewhere_stands_on_a_page() -> None:
    for prefix, where in RUN_ELSEWHERE.items():
        assert any(command.startswith(prefix) for command in COMMANDS), prefix
        # A script that holds a command does not run it.
        assert where.startswith(("tests/", ".ci/", "not run: ")), prefix


def parse_ours(arguments: Sequence[str]) -> None:
    build_parser().parse_args(arguments)


def parse_training(arguments: Sequence[str]) -> None:
    from fairseq import options

    import admin_nmt  # noqa: F401

    options.parse_args_and_arch(options.get_training_parser(), list(arguments))


def parse_preprocessing(arguments: Sequence[str]) -> None:
    from fairseq import options

    options.get_preprocessing_parser().parse_args(list(arguments))


def parse_recipe(arguments: Sequence[str]) -> None:
    option, name, *overrides = arguments
    assert option == "--config-name"
    compose(name, *overrides)


#: Reads the options of a program as the program does, and goes no further.
PARSERS: dict[str, Callable[[Sequence[str]], None]] = {
    "admin-nmt": parse_ours,
    "fairseq-train": parse_training,
    "fairseq-preprocess": parse_preprocessing,
    "fairseq-hydra-train": parse_recipe,
}


def called_by(command: str) -> list[str]:
    """The words of the program of ours or of fairseq that a command calls, if it calls one; "..." on a
    page stands for further options."""
    words = [word for word in shlex.split(command) if word != "..."]
    if words[0] == "bash" and words[1].startswith("data_prep/"):
        script = text_of(REPOSITORY / words[1])
        called = re.search(r'^exec (admin-nmt .*) "\$@"$', script, re.M)
        assert called, words[1]
        words = [*called[1].split(), *words[2:]]
    program = re.compile(r"admin-nmt|fairseq-[a-z-]+")
    return next((words[i:] for i, word in enumerate(words) if program.fullmatch(word)), [])


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command not in RUN_HERE and called_by(command)]
)
def test_options_of_commands_that_are_not_run_here_exist(command: str) -> None:
    program, *arguments = called_by(command)
    PARSERS[program](arguments)


def test_train_profile_and_scores_run_as_written(
    run: Callable[..., None],
    data_bin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands of the guide in their order, on tiny data and a shrunken model."""
    monkeypatch.chdir(tmp_path)
    shrink = "--encoder-layers 2 --decoder-layers 1 --encoder-embed-dim 16 --cpu"
    shrink += " --encoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2"
    shrink += " --decoder-embed-dim 16 --decoder-ffn-embed-dim 16"
    (tmp_path / "test.en").write_text("w1 w2 w3\n" * 20)
    (tmp_path / "text.de").write_text("w1 w2 w3\n\n")
    (tmp_path / "codes").write_text("#version: 0.2\nw 1\n")
    for name in ("hypotheses.detok", "baseline.detok", "ours.detok"):
        (tmp_path / name).write_text("w1 w2 w4\n" * 19 + "w1 w2 w3 w4\n")
    extra = {
        "fairseq-train": f"{shrink} --max-epoch 10 --fp16-no-flatten-grads --lr 1e-3 --num-workers 0 "
        "--disable-validation --save-dir checkpoints --required-batch-size-multiple 1",
        "profile": shrink,
        "analyze": "--cpu --num-tokens 50",
        "evaluate": "--cpu --beam 1",
        "export": "--bpe-codes codes --source-lang de --target-lang en",
    }
    ran = []
    for command in GUIDE_COMMANDS:
        words = re.sub(r"'([^']*)'", lambda m: m[1].replace(" ", ""), command).split()
        words = [str(data_bin) if word == "DATA" else word for word in words]
        kind = words[1] if words[0] == "admin-nmt" else words[0]
        more = extra.get(kind, "")
        if kind == "fairseq-train" and kind in ran:  # another training than the first
            more = more.replace("--save-dir checkpoints", "--save-dir another")
            more = more.replace("--max-epoch 10", "--max-update 2")
        run(*words, *more.split())
        ran.append(kind)
    assert set(ran) >= {"fairseq-train", "profile", "average", "evaluate", "score", "compare"}
    assert (tmp_path / "profile.png").exists()
    assert (tmp_path / "comparison.json").exists()
    assert {"fold", "export", "translate"} <= set(ran)
    assert (tmp_path / "text.en").read_text().count("\n") == 2


def test_architecture_table_lists_what_is_registered() -> None:
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    import admin_nmt  # noqa: F401

    listed = set()
    for row in re.findall(r"^\| (`admin_(?:transformer|realformer).*?) \|", GUIDE, re.M):
        names = re.findall(r"`([^`]+)`", row)
        listed |= {name.replace("...", names[0]) for name in names}
    registered = {
        a for a, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "admin_transformer"
    }
    assert listed == registered


def test_option_table_lists_our_options() -> None:
    from admin_nmt.models.config import AdminTransformerConfig, TransformerConfig

    ours = set(AdminTransformerConfig.__dataclass_fields__) - set(
        TransformerConfig.__dataclass_fields__
    )
    for name in ours:
        assert f"`--{name.replace('_', '-')}" in GUIDE


def test_criterion_table_lists_our_criterions_and_their_options() -> None:
    from fairseq.criterions.label_smoothed_cross_entropy import (
        LabelSmoothedCrossEntropyCriterionConfig,
    )

    from admin_nmt.criterions.label_smoothed_cross_entropy_rdrop import RDropConfig

    for name in (
        "admin_label_smoothed_cross_entropy",
        "label_smoothed_cross_entropy_rdrop",
        "label_smoothed_cross_entropy_distillation",
    ):
        assert f"`--criterion {name}`" in GUIDE
    inherited = LabelSmoothedCrossEntropyCriterionConfig.__dataclass_fields__
    for name in set(RDropConfig.__dataclass_fields__) - set(inherited):
        assert f"`--{name.replace('_', '-')} " in GUIDE


@pytest.mark.slow
def test_the_path_from_own_text_to_a_translator_runs_as_written(
    run: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The five commands of the README and the sixth below them, with a small model."""
    pytest.importorskip("ctranslate2")
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "CORPUS"
    corpus.mkdir()
    words = {"de": ["ein", "Haus", "steht", "dort"], "en": ["a", "house", "stands", "there"]}
    for name, size in (("train", 60), ("valid", 8), ("test", 8)):
        for language, choices in words.items():
            lines = [" ".join(choices[(i + j) % 4] for j in range(2 + i % 3)) for i in range(size)]
            (corpus / f"{name}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "text.de").write_text("ein Haus\n", encoding="utf-8")
    extra = {
        "prepare": "--bpe-tokens 10",
        "fairseq-train": "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --cpu "
        "--encoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 "
        "--max-epoch 5 --num-workers 0",
        "evaluate": "--cpu --beam 1",
    }
    last = re.search(r"`(admin-nmt translate [^`]*)`", OWN_TEXT)
    assert last
    for command in [*commands(OWN_TEXT), last[1]]:
        words_of = re.sub(r"'([^']*)'", lambda m: m[1].replace(" ", ""), command).split()
        kind = words_of[1] if words_of[0] == "admin-nmt" else words_of[0]
        run(*words_of, *extra.get(kind, "").split())
    assert (tmp_path / "text.en").read_text(encoding="utf-8").count("\n") == 1


def test_the_commands_of_the_methods_run_as_written(
    run: Callable[..., None], data_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shrink = (
        "--encoder-layers 2 --decoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-embed-dim 16"
    )
    shrink += " --encoder-attention-heads 2 --decoder-attention-heads 2 --cpu --max-update 2"
    shrink += " --disable-validation --num-workers 0 --save-dir checkpoints/"
    for name in ("admin", "realformer", "r-drop"):
        (command,) = commands(METHODS[name])
        command = re.sub(r"'([^']*)'", lambda m: m[1].replace(" ", ""), command)
        run(*f"{command.replace('DATA', str(data_bin))} {shrink}{name}".split())
    shutil.copy("checkpoints/admin/checkpoint_last.pt", "checkpoints/average.pt")
    assert Path("checkpoints/realformer/checkpoint_last.pt").exists()
    assert Path("checkpoints/r-drop/checkpoint_last.pt").exists()
    for command in commands(METHODS["head-pruning"]):
        run(*command.replace("DATA", str(data_bin)).split(), "--cpu")
    assert Path("pruned.pt").exists()


def _default(text: str) -> object:
    """A default as the tables of the methods write it, as its option has it."""
    return {"none": None, "off": False}.get(text, text.strip("`"))


def test_the_methods_name_each_default() -> None:
    from admin_nmt.criterions.label_smoothed_cross_entropy_rdrop import RDropConfig
    from admin_nmt.models.config import AdminTransformerConfig

    defaults = {}
    for config in (AdminTransformerConfig(), RDropConfig()):
        defaults |= {f"--{name.replace('_', '-')}": value for name, value in vars(config).items()}
    for name in ("importance", "prune"):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"admin_nmt.cli.{name}").add_arguments(parser)
        for action in parser._actions:
            defaults |= dict.fromkeys(action.option_strings, action.default)
        defaults |= {
            f"--{name.replace('_', '-')}": value
            for name, value in (parser.get_default("importance_defaults") or {}).items()
        }
    rows = [
        row
        for page in METHODS.values()
        for row in re.findall(r"^\| `(--[\w-]+)` \| ([^|]+) \|", page, re.M)
    ]
    assert len(rows) == 25
    for option, default in rows:
        value = getattr(defaults[option], "value", defaults[option])
        assert str(value) == str(_default(default)), option


@pytest.mark.parametrize("name", docs_pictures.PICTURES)
def test_pictures_are_those_of_the_script(name: str) -> None:
    made = docs_pictures.PICTURES[name]().svg()
    assert made == (docs_pictures.FOLDER / name).read_text(encoding="utf-8"), (
        "python scripts/docs_pictures.py makes the pictures"
    )


def test_the_index_of_the_reference_has_what_its_pages_have() -> None:
    folder = REPOSITORY / "docs" / "reference"
    index = (folder / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.*\]\((\w+\.md)\) \| (.*) \|$", index, re.M)
    assert {page for page, _ in rows} == {path.name for path in folder.glob("*.md")} - {"index.md"}
    listed = []
    for page, row in rows:
        modules = re.findall(r"`([\w.]+)`", row)
        text = (folder / page).read_text(encoding="utf-8")
        assert modules == re.findall(r"^::: (\S+)$", text, re.M), page
        listed += modules
    # The mathematics is public, but for what serves it: kernels, and how they are recorded.
    for path in (REPOSITORY / "admin_nmt" / "ops").glob("[!_]*.py"):
        if not path.stem.endswith("_triton") and path.stem != "recording":
            assert f"admin_nmt.ops.{path.stem}" in listed
    for package in ("checkpoints", "export", "pruning", "synthetic_data"):
        module = importlib.import_module(f"admin_nmt.{package}")
        for name in module.__all__:
            assert getattr(module, name).__module__ in listed, name


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_links_between_pages_lead_somewhere() -> None:
    pages = [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("*/README.md"),
    ]
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), f"{page.name}: {target} leads nowhere"
            if anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
                assert anchor in slugs, f"{page.name}: {target} has no such heading"
