"""Archives in the exact layout of the originals, with the oddities that real ones have."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from admin_nmt.data import pipeline

_TEXTS = {
    "de": "der Hund und das Haus-Tier sehen „Wasser“ z.B. 1.000 Äpfel Straße größer R&amp;D",
    "en": "the dog and a well-known house see “water” e.g. 1,000 apples it's R&amp;D don't",
    "fr": "le chien et la maison voient «\xa0l'eau\xa0» p.ex. 1.000 pommes d'été rendez-vous",
}
WORDS = {language: text.split(" ") for language, text in _TEXTS.items()}


def sentences(language: str, count: int, seed: int) -> list[str]:
    """Lines of 0 to 9 words with odd white space; two languages mostly agree on their number."""
    rng, shared = random.Random(f"{language}{seed}"), random.Random(seed)
    lengths = [0, 1, 3, 4, 4, 5, 5, 6, 6, 9]
    lines = []
    for _ in range(count):
        length = shared.choice(lengths)
        length = rng.choice(lengths) if rng.random() < 0.2 else length
        words = rng.choices(WORDS[language], k=length)
        space = rng.choice([" ", " ", "  ", "\t"])
        lines.append(space.join(words) + rng.choice(["", " .", "?", " "]))
    return lines


def encode(lines: list[str], end: str = "\n", last: str = "\n") -> bytes:
    """Text with `end` between lines and `last` at the end of the file."""
    return (end.join(lines) + last).encode()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> None:
    """An archive with folders as members too, as the originals have."""
    with tarfile.open(path, mode) as archive:
        for folder in {str(Path(name).parent) for name in members} - {"."}:
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def segments(lines: list[str], form: str) -> bytes:
    """An evaluation set as sgm or xml."""
    head = '<srcset setid="newstest2014" srclang="any">\n<doc docid="1">\n<p>\n'
    if form == "xml":
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n<title>a title</title>\n'
    body = "".join(f'<seg id="{n}"> {line} </seg>\r\n' for n, line in enumerate(lines, 1))
    return (head + body + "</doc>").encode()


@pytest.fixture
def iwslt14(tmp_path: Path) -> Path:
    """A folder with de-en.tgz: 2 talks of 120 and 80 lines, 5 test sets of 4 to 8 lines."""
    members = {}
    for language in ("de", "en"):
        lines = []
        for talk, count in enumerate((120, 80)):
            lines += [
                f"<url>http://www.ted.com/{talk}</url>",
                f"<keywords>a, {language}</keywords>",
            ]
            lines += ["<speaker>Al Gore</speaker>", f"<talkid>{talk}</talkid>"]
            lines += ["<title>Al Gore: it’s R&amp;D</title>", "<description>  Talk </description>"]
            lines += sentences(language, count, talk)
        members[f"de-en/train.tags.de-en.{language}"] = encode(lines, "\r\n", "")
        for number, name in enumerate(
            ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
        ):
            text = [f"{name} it’s {line}" for line in sentences(language, 4 + number, 10 + number)]
            members[f"de-en/IWSLT14.{name}.de-en.{language}.xml"] = segments(text, "xml")
    members["de-en/README"] = b"not ours\n"
    folder = tmp_path / "iwslt14-archives"
    folder.mkdir()
    write_tar(folder / "de-en.tgz", members)
    return folder


@pytest.fixture
def wmt14(tmp_path: Path) -> Path:
    """A folder with the archives of both WMT14 corpora; 150 or more lines in each file."""
    folder = tmp_path / "wmt14-archives"
    folder.mkdir()

    def both(pattern: str, seed: int, pairs=("de-en", "fr-en"), count: int = 150, last: str = "\n"):
        return {
            f"{pattern.format(pair)}.{language}": encode(
                sentences(language, count, seed), last=last
            )
            for pair in pairs
            for language in pair.split("-")
        }

    # Without the last line feed: the next file must not be glued on.
    write_tar(
        folder / "training-parallel-europarl-v7.tgz", both("training/europarl-v7.{}", 1, last="")
    )
    crawl = both("commoncrawl.{}", 2)
    for name, data in crawl.items():
        crawl[name] = data + b"broken \xff\xfe bytes\x07 here \xe2\x80\x94 \xc2\xadso\n"
    write_tar(folder / "training-parallel-commoncrawl.tgz", crawl)
    for number in (9, 12):
        news = both(f"training/news-commentary-v{number}.{{}}", number)
        write_tar(folder / f"training-parallel-nc-v{number}.tgz", news)
    write_tar(folder / "training-parallel-un.tgz", both("un/undoc.2000.{}", 3, ["fr-en"]))
    giga = both("giga-fren.release2.fixed", 4, ["fr-en"], 4200)
    giga = {f"{name}.gz": gzip.compress(data) for name, data in giga.items()}
    write_tar(folder / "training-giga-fren.tar", giga, "w")
    write_tar(folder / "dev.tgz", both("dev/newstest2013", 5, ["de-en"], 20))
    test = {
        f"test-full/newstest2014-{pair}-{role}.{language}.sgm": segments(
            [f"it’s «{line}» —" for line in sentences(language, 15, 6)], "sgm"
        )
        for pair, languages in (("deen", ("en", "de")), ("fren", ("en", "fr")))
        for language in languages
        for role in ("src", "ref")
    }
    write_tar(folder / "test-full.tgz", test)
    return folder


@pytest.fixture
def custom(tmp_path: Path) -> dict[str, Path]:
    """Small parallel files; name -> path."""
    folder = tmp_path / "custom"
    folder.mkdir()
    files = {}
    for number, (name, count) in enumerate((("train", 90), ("valid", 12), ("test", 9))):
        for language in ("de", "en"):
            lines = sentences(language, count, number)
            if name != "train":
                lines = [line.strip() or "x" for line in lines]
            files[f"{name}.{language}"] = folder / f"{name}.{language}"
            files[f"{name}.{language}"].write_bytes(encode(lines))
    return files


@pytest.fixture
def quick_binarize(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the text instead of starting fairseq-preprocess, which takes seconds."""

    def fake(text, languages, sets, destination, *, joined_dictionary, workers):
        for name in sets:
            for language in languages:
                data = (text / f"{name}.{language}").read_bytes()
                (destination / f"{name}.{language}.bin").write_bytes(data)

    monkeypatch.setattr(pipeline, "binarize", fake)
