"""Lexicon of the German-English corpus: words, their forms and what they combine with.

Every word says which `kinds` of things it is (nouns) or goes with (verbs, adjectives): words of
one string, separated by spaces. `syntax` turns the entries into phrases and clauses; `sentences`
chooses them.

The vocabulary is in `vocabulary.tsv`: tables separated by an empty line, each with a line
`# name of the table`, a line of column names, which are fields of the table's class below, and one
word per line. An empty cell means the field's default. Only the words that the grammar itself
mentions are written here.
"""

import csv
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

NOMINATIVE, ACCUSATIVE, DATIVE = "nominative", "accusative", "dative"


def share_a_kind(first: str, second: str) -> bool:
    """True when two strings of kinds have a word in common."""
    return not set(first.split()).isdisjoint(second.split())


@dataclass(frozen=True)
class Noun:
    """A noun: singular, gender (m, f, n) and plural in German; singular and plural in English.

    `oblique` is the accusative and dative singular of the weak masculines (der Junge, den Jungen).
    Mass nouns have no plural. `is_owned` tells whether "mein" goes with it (meine Frau is not "my
    woman").
    """

    singular: str
    gender: str
    plural: str
    english: str
    english_plural: str
    kinds: str
    oblique: str = ""
    is_owned: bool = True

    @property
    def is_mass(self) -> bool:
        return not self.plural


@dataclass(frozen=True)
class Adjective:
    """An adjective; `stem` is what endings are added to where it differs (teuer: teur-).

    Only what `is_gradable` can be "very" so.
    """

    german: str
    english: str
    kinds: str
    stem: str = ""
    is_gradable: bool = True


@dataclass(frozen=True)
class Preposition:
    """A preposition, the case that it governs, its translation and the nouns that it takes."""

    german: str
    case: str
    english: str
    kinds: str


@dataclass(frozen=True)
class Verb:
    """A verb with its forms and its valency.

    german: infinitive, ich-form, du-form, er-form (all without the particle), past participle.
        The plural is the infinitive unless `plural` says otherwise.
    english: base form, third person singular, simple past, past participle.
    subject, accusative, dative: kinds of these arguments; empty where there is none.
    governed: the preposition of a prepositional object (warten auf).
    direction: kinds of places the verb leads to; non-empty for verbs of motion.
    english_particle: the fixed rest of an English phrasal verb (turn ON); it follows a pronoun.
    english_preposition: goes before the direct object, or before the recipient where the verb has a
        dative (look FOR, listen TO, explain something TO somebody).
    """

    german: str
    english: str
    subject: str = "person"
    accusative: str = ""
    dative: str = ""
    governed: Preposition | None = None
    direction: str = ""
    particle: str = ""
    english_particle: str = ""
    english_preposition: str = ""
    auxiliary: str = "haben"
    plural: str = ""
    takes_place: bool = True
    takes_company: bool = False
    takes_beneficiary: bool = False


@dataclass(frozen=True)
class Modal:
    """A modal verb: German ich-, du-, er- and plural form; English base form and third person.

    `is_auxiliary` tells "can buy" (no do-support) from "wants to buy" (do-support).
    """

    german: str
    english: str
    is_auxiliary: bool


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun in three German cases and two English ones.

    person: 0 ich, 1 du, 2 er, 3 plural: the index of the finite verb form. Accusatives that
    English could not tell apart (sie: her, them, it) are left empty and never used.
    """

    nominative: str
    accusative: str
    dative: str
    english: str
    english_object: str
    person: int


@dataclass(frozen=True)
class Adverb:
    """An adverbial and the tenses it goes with: present, past, future, modal."""

    german: str
    english: str
    tenses: str


@dataclass(frozen=True)
class Conjunction:
    """A subordinating conjunction, and whether its clause may be in the past."""

    german: str
    english: str
    allows_past: bool


def _cell(kind: type, name: str, text: str) -> Any:
    """The value of one cell; an empty one stands for the default of field `name` of `kind`."""
    field = next(field for field in fields(kind) if field.name == name)
    if not text and field.default is not MISSING:
        return field.default
    if name == "governed":
        return Preposition(*text.split("; "))
    if field.type is bool:
        return {"yes": True, "no": False}[text]
    return int(text) if field.type is int else text


def _read_table(text: str, kind: type) -> tuple[Any, ...]:
    """The words of one table (without its name), as objects of the dataclass `kind`."""
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(kind(**{name: _cell(kind, name, row[name]) for name in row}) for row in rows)


def _tables() -> dict[str, str]:
    """The tables of `vocabulary.tsv` by name, as text."""
    text = Path(__file__).with_name("vocabulary.tsv").read_text(encoding="utf-8")
    named = (table.split("\n", 1) for table in text.strip("\n").split("\n\n"))
    return {name.removeprefix("# "): table for name, table in named}


_TABLES = _tables()
NOUNS = _read_table(_TABLES["nouns"], Noun)
ADJECTIVES = _read_table(_TABLES["adjectives"], Adjective)

PRONOUNS = _read_table(_TABLES["pronouns"], Pronoun)
HE, SHE, THEY = PRONOUNS[2], PRONOUNS[3], PRONOUNS[5]
WHO = Pronoun("wer", "", "", "who", "", 2)

PLACES = _read_table(_TABLES["places"], Preposition)
DIRECTIONS = _read_table(_TABLES["directions"], Preposition)
COMPANY = _read_table(_TABLES["company"], Preposition)
FOR = Preposition("für", ACCUSATIVE, "for", "person")

BE = Verb("sein bin bist ist gewesen", "be is was been", plural="sind")
TRANSITIVE_VERBS = _read_table(_TABLES["transitive_verbs"], Verb)
SEPARABLE_VERBS = _read_table(_TABLES["separable_verbs"], Verb)
INTRANSITIVE_VERBS = _read_table(_TABLES["intransitive_verbs"], Verb)
MOTION_VERBS = _read_table(_TABLES["motion_verbs"], Verb)
DATIVE_VERBS = _read_table(_TABLES["dative_verbs"], Verb)
GIVING_VERBS = _read_table(_TABLES["giving_verbs"], Verb)

# Verbs of saying and thinking that take a clause with "dass"; the first also takes one with "ob".
THAT_VERBS = _read_table(_TABLES["that_verbs"], Verb)
KNOW = THAT_VERBS[0]
ASK = Verb("fragen frage fragst fragt gefragt", "ask asks asked asked")  # with "ob" only

MODALS = _read_table(_TABLES["modals"], Modal)

# Finite auxiliaries by person, and the only simple past of this grammar: sein.
AUXILIARIES = {"haben": "habe hast hat haben", "sein": "bin bist ist sind"}
PAST_OF_BE = "war warst war waren"

# Adverbials of time; German places them in front or in the middle, English in front or last. With
# those of the future the German present tense is an English future.
TIMES = _read_table(_TABLES["times"], Adverb)

# Adverbs of frequency; with a past tense they make an English present perfect.
FREQUENCIES = _read_table(_TABLES["frequencies"], Adverb)

BECAUSE = Conjunction("weil", "because", allows_past=True)
ALTHOUGH = Conjunction("obwohl", "although", allows_past=True)
WHEN = Conjunction("wenn", "when", allows_past=False)
BEFORE = Conjunction("bevor", "before", allows_past=False)
SUBORDINATORS = (BECAUSE, ALTHOUGH, WHEN, BEFORE)
THAT = Conjunction("dass", "that", allows_past=True)
WHETHER = Conjunction("ob", "whether", allows_past=True)
