"""Syntax of the corpus: abstract clauses, and how German and English say them.

A `Clause` holds what is said (who, what, when, negated or not); `german_...` and `english_...`
functions put it into the word order of each language. All of them return lists of words, with
commas as words of their own; `write_out` makes text of them.

German: the finite verb is second in statements, first in questions and last in subordinate
clauses; particles, participles and infinitives close the clause. English: subject, verb, objects,
place, time, with "do" in questions and negations.
"""

from dataclasses import dataclass, replace

from corpus.lexicon import (
    ACCUSATIVE,
    AUXILIARIES,
    BE,
    DATIVE,
    NOMINATIVE,
    PAST_OF_BE,
    Adjective,
    Adverb,
    Modal,
    Noun,
    Preposition,
    Pronoun,
    Verb,
)

PRESENT, PAST, FUTURE = "present", "past", "future"
_CASES = (NOMINATIVE, ACCUSATIVE, DATIVE)
_GENDERS = "mfn"  # and the plural as a fourth column of each table

# Endings by case (rows: nominative, accusative, dative) and by gender or plural (columns m f n pl);
# "-" stands for no ending.
_DEFINITE_ARTICLES = ("der die das die", "den die das die", "dem der dem den")
_STRONG = ("er e es e", "en e es e", "em er em en")
_WEAK = ("e e e en", "en e e en", "en en en en")
_MIXED = ("er e es en", "en e es en", "en en en en")
_EIN_WORD = ("- e - e", "en e - e", "em er em en")

_EIN_STEMS = ("ein", "kein", "mein", "dein", "unser")
_ENGLISH_DETERMINERS = {
    "der": "the",
    "mein": "my",
    "dein": "your",
    "unser": "our",
    "kein": "no",
    "": "",
}
_CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}
_BE_PRESENT = ("am", "are", "is", "are")
_BE_PAST = ("was", "were", "was", "were")
_SILENT_H = ("honest",)


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its determiner, adjective, number and relative clause.

    determiner: "der", "dieser", "ein", "kein", "mein", "dein", "unser" or "" (plural or mass noun).
    relative: a clause about the noun; it is its subject if that clause has this noun as subject
        (people: der Mann, der lacht), otherwise its direct object (das Buch, das der Mann liest).
    """

    noun: Noun
    determiner: str
    adjective: Adjective | None = None
    plural: bool = False
    relative: "Clause | None" = None

    @property
    def person(self) -> int:
        return 3 if self.plural else 2

    @property
    def is_definite(self) -> bool:
        return self.determiner not in ("", "ein", "kein")


Phrase = NounPhrase | Pronoun


@dataclass(frozen=True)
class PrepositionalPhrase:
    """A preposition with a phrase in the case that it governs."""

    preposition: Preposition
    phrase: NounPhrase


@dataclass(frozen=True)
class Predicate:
    """An adjective after "to be", with "very" or not."""

    adjective: Adjective
    is_very: bool = False


@dataclass(frozen=True)
class Clause:
    """What one clause says.

    `negated` stands for nicht; a direct object with the determiner kein negates the clause too.
    The present tense is the German present and English simple present; the past the German perfect
    (preterite for "to be") and English simple past, or present perfect where an adverb of
    `frequency` demands it; the future the German present and English "will".
    """

    subject: Phrase
    verb: Verb
    tense: str = PRESENT
    modal: Modal | None = None
    accusative: Phrase | None = None
    dative: Phrase | None = None
    governed: PrepositionalPhrase | None = None
    direction: PrepositionalPhrase | None = None
    company: PrepositionalPhrase | None = None
    place: PrepositionalPhrase | None = None
    predicate: Predicate | None = None
    time: Adverb | None = None
    frequency: Adverb | None = None
    negated: bool = False

    @property
    def has_negative_object(self) -> bool:
        return isinstance(self.accusative, NounPhrase) and self.accusative.determiner == "kein"


def write_out(words: list[str], mark: str) -> str:
    """Join words to a sentence: commas attached, capital letter, final punctuation mark."""
    text = " ".join(words).replace(" ,", ",").rstrip(",") + mark
    return text[0].upper() + text[1:]


# German phrases


def _ending(table: tuple[str, ...], case: str, phrase: NounPhrase) -> str:
    column = 3 if phrase.plural else _GENDERS.index(phrase.noun.gender)
    return table[_CASES.index(case)].split()[column].replace("-", "")


def _german_determiner(phrase: NounPhrase, case: str) -> str:
    if phrase.determiner == "der":
        return _ending(_DEFINITE_ARTICLES, case, phrase)
    if phrase.determiner == "dieser":
        return "dies" + _ending(_STRONG, case, phrase)
    if phrase.determiner in _EIN_STEMS:
        return phrase.determiner + _ending(_EIN_WORD, case, phrase)
    return ""


def _german_noun(phrase: NounPhrase, case: str) -> str:
    noun = phrase.noun
    if phrase.plural:
        return noun.plural + ("n" if case == DATIVE and noun.plural[-1] not in "ns" else "")
    return noun.oblique if noun.oblique and case != NOMINATIVE else noun.singular


def _german_adjective(phrase: NounPhrase, case: str) -> str:
    adjective = phrase.adjective
    if adjective is None:
        return ""
    table = _STRONG
    if phrase.determiner in ("der", "dieser"):
        table = _WEAK
    elif phrase.determiner in _EIN_STEMS:
        table = _MIXED
    return (adjective.stem or adjective.german) + _ending(table, case, phrase)


def _relative_is_about_subject(phrase: NounPhrase) -> bool:
    relative = phrase.relative
    return (
        relative is not None
        and isinstance(relative.subject, NounPhrase)
        and relative.subject.noun is phrase.noun
    )


def german_phrase(phrase: Phrase, case: str) -> list[str]:
    """A pronoun or noun phrase in a case; a relative clause stands between commas."""
    if isinstance(phrase, Pronoun):
        return [getattr(phrase, case)]
    words = [
        _german_determiner(phrase, case),
        _german_adjective(phrase, case),
        _german_noun(phrase, case),
    ]
    words = [word for word in words if word]
    if phrase.relative is not None:
        relative_case = NOMINATIVE if _relative_is_about_subject(phrase) else ACCUSATIVE
        pronoun = _ending(_DEFINITE_ARTICLES, relative_case, phrase)
        words += [",", *_german_relative(phrase, pronoun), ","]
    return words


def _german_relative(phrase: NounPhrase, pronoun: str) -> list[str]:
    clause = phrase.relative
    assert clause is not None
    if _relative_is_about_subject(phrase):
        return [pronoun, *_german_middle(clause), *_german_final_verbs(clause)]
    return german_subordinate(pronoun, replace(clause, accusative=None))


def german_prepositional(prepositional: PrepositionalPhrase | None) -> list[str]:
    """A prepositional phrase, contracted where German contracts it (im, ins, zum, zur)."""
    if prepositional is None:
        return []
    preposition = prepositional.preposition
    words = german_phrase(prepositional.phrase, preposition.case)
    contraction = _CONTRACTIONS.get((preposition.german, words[0]))
    return [contraction, *words[1:]] if contraction else [preposition.german, *words]


# German clauses


def _german_verbs(clause: Clause) -> tuple[str, str, list[str]]:
    """Finite verb and the verb forms that close the clause: (finite, particle, non-finite)."""
    verb, person = clause.verb, clause.subject.person
    infinitive, first, second, third, participle = verb.german.split()
    if clause.modal is not None:
        return clause.modal.german.split()[person], "", [verb.particle + infinitive]
    if clause.tense == PAST and verb is BE:
        return PAST_OF_BE.split()[person], "", []
    if clause.tense == PAST:
        return AUXILIARIES[verb.auxiliary].split()[person], "", [participle]
    finite = (first, second, third, verb.plural or infinitive)[person]
    return finite, verb.particle, []


def _german_closing(clause: Clause) -> list[str]:
    """What closes a main clause: the separated particle, a participle or an infinitive."""
    _, particle, nonfinite = _german_verbs(clause)
    return nonfinite or ([particle] if particle else [])


def _german_final_verbs(clause: Clause) -> list[str]:
    """All verb forms in the order of a subordinate clause: the finite one is last."""
    finite, particle, nonfinite = _german_verbs(clause)
    return [*nonfinite, particle + finite]


def _german_middle(clause: Clause) -> list[str]:
    """The middle field: pronouns first, then what `_german_late_middle` orders."""
    return [*_german_pronouns(clause), *_german_late_middle(clause)]


def _german_pronouns(clause: Clause) -> list[str]:
    # No clause has both, so their order (accusative first) never matters.
    objects = ((clause.accusative, ACCUSATIVE), (clause.dative, DATIVE))
    return [getattr(phrase, case) for phrase, case in objects if isinstance(phrase, Pronoun)]


def _german_late_middle(clause: Clause) -> list[str]:
    """Definite objects, negation and frequency, company, place, indefinite objects, the rest.

    The time goes before definite objects, but behind them if nicht follows.
    """
    definite: list[str] = []
    indefinite: list[str] = []
    for phrase, case in ((clause.dative, DATIVE), (clause.accusative, ACCUSATIVE)):
        if isinstance(phrase, NounPhrase):
            group = definite if phrase.is_definite else indefinite
            group += german_phrase(phrase, case)
    time = [clause.time.german] if clause.time else []
    adverbs = ["nicht"] if clause.negated else []
    if clause.frequency:
        adverbs.append(clause.frequency.german)
    return [
        *(definite + time if clause.negated else time + definite),
        *adverbs,
        *german_prepositional(clause.company),
        *german_prepositional(clause.place),
        *indefinite,
        *german_prepositional(clause.governed),
        *german_prepositional(clause.direction),
        *_german_predicate(clause.predicate),
    ]


def _german_predicate(predicate: Predicate | None) -> list[str]:
    if predicate is None:
        return []
    return [*(["sehr"] if predicate.is_very else []), predicate.adjective.german]


def german_statement(clause: Clause) -> list[str]:
    """Subject first, finite verb second."""
    return [
        *german_phrase(clause.subject, NOMINATIVE),
        _german_verbs(clause)[0],
        *_german_middle(clause),
        *_german_closing(clause),
    ]


def german_question(clause: Clause, interrogative: str = "") -> list[str]:
    """Finite verb first, or second behind an interrogative."""
    return [*([interrogative] if interrogative else []), *german_inverted(clause)]


def german_inverted(clause: Clause) -> list[str]:
    """Finite verb before the subject, as behind anything that takes the first place.

    Object pronouns go before a subject that is a noun (heute sieht mich die Frau), but behind
    another pronoun (heute sieht sie mich).
    """
    subject = german_phrase(clause.subject, NOMINATIVE)
    pronouns = _german_pronouns(clause)
    return [
        _german_verbs(clause)[0],
        *(subject + pronouns if isinstance(clause.subject, Pronoun) else pronouns + subject),
        *_german_late_middle(clause),
        *_german_closing(clause),
    ]


def german_time_first(clause: Clause) -> list[str]:
    """The time first, finite verb second."""
    assert clause.time is not None
    return [clause.time.german, *german_inverted(replace(clause, time=None))]


def german_object_first(clause: Clause) -> list[str]:
    """The direct object first, finite verb second; English cannot follow this order."""
    assert clause.accusative is not None
    first = german_phrase(clause.accusative, ACCUSATIVE)
    return [*first, *german_inverted(replace(clause, accusative=None))]


def german_subordinate(opening: str, clause: Clause) -> list[str]:
    """Conjunction or relative pronoun first, finite verb last."""
    return [
        opening,
        *german_phrase(clause.subject, NOMINATIVE),
        *_german_middle(clause),
        *_german_final_verbs(clause),
    ]


# English phrases


def _with_article(words: list[str]) -> list[str]:
    starts_with_vowel = words[0][0] in "aeiou" or words[0] in _SILENT_H
    return ["an" if starts_with_vowel else "a", *words]


def english_phrase(phrase: Phrase, is_subject: bool = False) -> list[str]:
    """A pronoun or noun phrase; "kein" is "no" as a subject, "any" or "a" after "not"."""
    if isinstance(phrase, Pronoun):
        return [phrase.english if is_subject else phrase.english_object]
    noun = phrase.noun
    words = [phrase.adjective.english] if phrase.adjective else []
    words.append(noun.english_plural if phrase.plural else noun.english)
    if phrase.determiner == "dieser":
        words = ["these" if phrase.plural else "this", *words]
    elif phrase.determiner == "kein" and not is_subject and (phrase.plural or noun.is_mass):
        words = ["any", *words]
    elif phrase.determiner == "ein" or (phrase.determiner == "kein" and not is_subject):
        words = _with_article(words)
    elif phrase.determiner:
        words = [_ENGLISH_DETERMINERS[phrase.determiner], *words]
    if phrase.relative is not None:
        words += _english_relative(phrase)
    return words


def _english_relative(phrase: NounPhrase) -> list[str]:
    clause = phrase.relative
    assert clause is not None
    if _relative_is_about_subject(phrase):
        return ["who", *_english_predication(clause)]
    return ["that", *english_statement(replace(clause, accusative=None))]


def english_prepositional(prepositional: PrepositionalPhrase | None) -> list[str]:
    """A prepositional phrase."""
    if prepositional is None:
        return []
    return [prepositional.preposition.english, *english_phrase(prepositional.phrase)]


# English clauses


def _english_verbs(clause: Clause, inverted: bool) -> tuple[str, list[str]]:
    """The auxiliary ("" for none) and the other verb words of a clause.

    Questions and negations (`inverted` or negated) must have an auxiliary: "do" is the last resort.
    """
    base, third, past, participle = clause.verb.english.split()
    person = clause.subject.person
    is_third = person == 2
    if clause.verb is BE:
        return (_BE_PAST if clause.tense == PAST else _BE_PRESENT)[person], []
    tail: list[str] = []
    if clause.modal is not None:
        if clause.modal.is_auxiliary:
            return clause.modal.english.split()[0], [base]
        tail = ["to", base]
        base, third = clause.modal.english.split()
    elif clause.tense == FUTURE:
        return "will", [base]
    elif clause.tense == PAST and clause.frequency is not None:
        return "has" if is_third else "have", [participle]
    if inverted or clause.negated or clause.has_negative_object:
        do = "did" if clause.tense == PAST else ("does" if is_third else "do")
        return do, [base, *tail]
    if clause.tense == PAST:
        return "", [past]
    return "", [third if is_third else base, *tail]


def _english_objects(clause: Clause) -> list[str]:
    """Objects and the fixed particle or preposition of the verb."""
    verb = clause.verb
    direct = english_phrase(clause.accusative) if clause.accusative else []
    recipient = english_phrase(clause.dative) if clause.dative else []
    particle = [verb.english_particle] if verb.english_particle else []
    preposition = [verb.english_preposition] if verb.english_preposition else []
    if recipient and preposition:
        return [*direct, *preposition, *recipient]
    if recipient:
        return [*recipient, *direct]
    if isinstance(clause.accusative, Pronoun):
        return [*preposition, *direct, *particle]
    return [*preposition, *particle, *direct]


def _english_predication(clause: Clause, interrogative: bool = False) -> list[str]:
    """All of a clause but its subject (and, in a question, its auxiliary)."""
    auxiliary, verbs = _english_verbs(clause, interrogative)
    negated = clause.negated or clause.has_negative_object
    head = [] if interrogative or not auxiliary else [auxiliary]
    if negated:
        head = ["cannot"] if head == ["can"] else [*head, "not"]
    predicate = clause.predicate
    return [
        *head,
        *([clause.frequency.english] if clause.frequency else []),
        *verbs,
        *_english_objects(clause),
        *(["very"] if predicate and predicate.is_very else []),
        *([predicate.adjective.english] if predicate else []),
        *english_prepositional(clause.governed),
        *english_prepositional(clause.direction),
        *english_prepositional(clause.company),
        *english_prepositional(clause.place),
        *([clause.time.english] if clause.time else []),
    ]


def english_statement(clause: Clause) -> list[str]:
    """Subject, verb, objects, place, time."""
    return [*english_phrase(clause.subject, is_subject=True), *_english_predication(clause)]


def english_time_first(clause: Clause) -> list[str]:
    """The time in front, the rest as in a statement."""
    assert clause.time is not None
    return [clause.time.english, *english_statement(replace(clause, time=None))]


def english_question(clause: Clause, interrogative: str = "") -> list[str]:
    """Auxiliary before the subject."""
    auxiliary, _ = _english_verbs(clause, inverted=True)
    return [
        *([interrogative] if interrogative else []),
        auxiliary,
        *english_phrase(clause.subject, is_subject=True),
        *_english_predication(clause, interrogative=True),
    ]


def english_subordinate(opening: str, clause: Clause) -> list[str]:
    """Conjunction and statement."""
    return [opening, *english_statement(clause)]
