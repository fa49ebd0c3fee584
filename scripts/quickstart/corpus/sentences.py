"""Random sentences of the corpus: which words, phrases, clauses and constructions to combine.

`SentenceSampler` makes the choices and gives `Clause` objects their content; `syntax` says them
in both languages. The choices are made so that the English of a sentence follows from its German:
no pronoun of several translations, no clause whose subject and object could change places.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from corpus.lexicon import (
    ADJECTIVES,
    ASK,
    BE,
    COMPANY,
    DATIVE_VERBS,
    DIRECTIONS,
    FOR,
    FREQUENCIES,
    GIVING_VERBS,
    HE,
    INTRANSITIVE_VERBS,
    KNOW,
    MODALS,
    MOTION_VERBS,
    NOUNS,
    PLACES,
    PRONOUNS,
    SEPARABLE_VERBS,
    SHE,
    SUBORDINATORS,
    THAT,
    THAT_VERBS,
    THEY,
    TIMES,
    TRANSITIVE_VERBS,
    WHETHER,
    WHO,
    Adverb,
    Conjunction,
    Noun,
    Preposition,
    Pronoun,
    Verb,
    share_a_kind,
)
from corpus.syntax import (
    FUTURE,
    PAST,
    PRESENT,
    Clause,
    NounPhrase,
    Phrase,
    Predicate,
    PrepositionalPhrase,
    english_question,
    english_statement,
    english_subordinate,
    english_time_first,
    german_inverted,
    german_object_first,
    german_question,
    german_statement,
    german_subordinate,
    german_time_first,
    write_out,
)

T = TypeVar("T")
Pair = tuple[str, str]

_DETERMINERS = (("der", 46), ("ein", 22), ("mein", 9), ("dein", 5), ("unser", 8), ("dieser", 10))
_VERB_GROUPS = (
    (TRANSITIVE_VERBS, 36),
    (SEPARABLE_VERBS, 26),
    (INTRANSITIVE_VERBS, 14),
    (MOTION_VERBS, 7),
    (DATIVE_VERBS, 6),
    (GIVING_VERBS, 11),
)
# What "to be" is said of.
_DESCRIBED = (
    ("person", 4),
    ("animal", 2),
    ("place", 2),
    ("food readable clothes device vehicle luggage", 5),
)
_OWNERS = ("mein", "dein", "unser")
# The first and second person are rarer, so that their verb forms do not crowd out the others.
_SUBJECT_PRONOUNS = tuple(zip(PRONOUNS, (2, 1, 3, 3, 2, 3), strict=True))


class SentenceSampler:
    """Random choices of words, phrases, clauses and sentences.

    Only `rng.random()` is used: Python guarantees its sequence for a seed, across versions.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    # Choices

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def weighted(self, items: Sequence[tuple[T, int]]) -> T:
        threshold = self.rng.random() * sum(weight for _, weight in items)
        for item, weight in items:
            threshold -= weight
            if threshold < 0:
                return item
        return items[-1][0]

    # Phrases

    def noun_phrase(self, nouns: Sequence[Noun], plain: bool = False) -> NounPhrase:
        """A phrase around one of the nouns; `plain`: singular, definite and mostly bare."""
        noun = self.pick(nouns)
        plural = not noun.is_mass and not plain and self.chance(0.25)
        determiner = "der" if plain else self.weighted(_DETERMINERS)
        if determiner in _OWNERS and not noun.is_owned:
            determiner = "der"
        if determiner == "ein" and (plural or noun.is_mass):
            determiner = ""
        adjective = None
        if self.chance(0.1 if plain else 0.33):
            adjective = self.pick([a for a in ADJECTIVES if share_a_kind(a.kinds, noun.kinds)])
        return NounPhrase(noun, determiner, adjective, plural)

    def subject(self, kinds: str) -> Phrase:
        """A pronoun where persons are possible, or a noun phrase, rarely negative (kein Kind)."""
        if share_a_kind(kinds, "person") and self.chance(0.22):
            return self.weighted(_SUBJECT_PRONOUNS)
        phrase = self.noun_phrase(_nouns(kinds))
        return replace(phrase, determiner="kein") if self.chance(0.02) else phrase

    def object(self, kinds: str, pronouns: Sequence[Pronoun]) -> Phrase:
        """A pronoun from the list where persons are possible, or a noun phrase."""
        if pronouns and share_a_kind(kinds, "person") and self.chance(0.25):
            return self.pick(pronouns)
        return self.noun_phrase(_nouns(kinds))

    def prepositional(self, preposition: Preposition, kinds: str = "") -> PrepositionalPhrase:
        """The preposition with a noun of its kinds, and also of `kinds` if given."""
        nouns = _nouns(preposition.kinds)
        if kinds:
            nouns = [noun for noun in nouns if share_a_kind(noun.kinds, kinds)]
        phrase = self.noun_phrase(nouns, plain=self.chance(0.6))
        if share_a_kind(phrase.noun.kinds, "place"):
            phrase = _with_determiner(phrase)
        return PrepositionalPhrase(preposition, phrase)

    def place(self) -> PrepositionalPhrase:
        """Where something happens: mostly in a place, sometimes before or behind one."""
        return self.prepositional(PLACES[0] if self.chance(0.6) else self.pick(PLACES[1:]))

    # Clauses

    def verb(self, subject: Phrase | None = None) -> Verb:
        """A full verb, one that suits the subject if there is one already."""
        verb = self.pick(self.weighted(_VERB_GROUPS))
        while subject is not None and not share_a_kind(_kinds_of(subject), verb.subject):
            verb = self.pick(self.weighted(_VERB_GROUPS))
        return verb

    def clause(
        self, subject: Phrase | None = None, verb: Verb | None = None, tense: str = ""
    ) -> Clause:
        """Subject, verb, its objects, and present or past, as far as they are not given."""
        verb = verb or self.verb(subject)
        subject = subject or self.subject(verb.subject)
        tense = tense or self.weighted(((PRESENT, 62), (PAST, 38)))
        recipient = direct = governed = direction = None
        if verb.dative:
            recipient = _with_determiner(self.object(verb.dative, _others(subject, "dative")))
        if verb.accusative:
            # With two objects, only the recipient may be a pronoun.
            pronouns = [] if verb.dative else _others(subject, "accusative")
            direct = self.object(verb.accusative, pronouns)
        if verb.governed is not None:
            governed = self.prepositional(verb.governed)
        if verb.direction:
            direction = self.prepositional(self.pick(DIRECTIONS), verb.direction)
        return Clause(
            subject,
            verb,
            tense,
            accusative=direct,
            dative=recipient,
            governed=governed,
            direction=direction,
        )

    def rich_clause(self, with_time: bool = False) -> Clause:
        """A clause that may have a modal verb, the future, a negation and adverbials."""
        clause = self.clause()
        if clause.tense == PRESENT and self.chance(0.3):
            clause = replace(clause, modal=self.pick(MODALS))
        elif clause.tense == PRESENT and self.chance(0.15):
            clause = replace(clause, tense=FUTURE)
        if self.chance(0.15):
            clause = _negated(clause)
        if with_time or clause.tense == FUTURE or self.chance(0.15):
            clause = replace(clause, time=self.time(clause))
        elif not clause.modal and not _is_negative(clause) and self.chance(0.12):
            suitable = [a for a in FREQUENCIES if share_a_kind(a.tenses, clause.tense)]
            clause = replace(clause, frequency=self.pick(suitable))
        return self.with_adjunct(clause)

    def time(self, clause: Clause) -> Adverb:
        """An adverbial that suits the tense."""
        tense = "modal" if clause.modal else clause.tense
        return self.pick([adverb for adverb in TIMES if share_a_kind(adverb.tenses, tense)])

    def with_adjunct(self, clause: Clause) -> Clause:
        """The clause with company, a beneficiary or a place if its verb allows one, or as it is."""
        verb = clause.verb
        if verb.takes_company and not _is_negative(clause) and self.chance(0.3):
            return replace(clause, company=self.prepositional(self.pick(COMPANY)))
        if verb.takes_beneficiary and not _is_negative(clause) and self.chance(0.2):
            return replace(clause, governed=self.prepositional(FOR))
        if verb.takes_place and not verb.direction and self.chance(0.25):
            return replace(clause, place=self.place())
        return clause

    def copula(self, subject: Phrase | None = None, tense: str = "") -> Clause:
        """Somebody or something is, or was, of some quality or at some place."""
        subject = subject or self.subject(self.weighted(_DESCRIBED))
        clause = Clause(subject, BE, tense or self.weighted(((PRESENT, 70), (PAST, 30))))
        kinds = _kinds_of(subject)
        if share_a_kind(kinds, "person animal") and self.chance(0.25):
            return replace(clause, place=self.place())
        known = subject.adjective if isinstance(subject, NounPhrase) else None
        adjective = self.pick(
            [a for a in ADJECTIVES if share_a_kind(a.kinds, kinds) and a is not known]
        )
        is_very = adjective.is_gradable and self.chance(0.25)
        return replace(clause, predicate=Predicate(adjective, is_very))

    def next_clause(self, previous: Phrase, tense: str) -> Clause:
        """A clause that goes on about the previous subject, as a pronoun, or about another."""
        pronoun = _anaphor(previous) if self.chance(0.5) else None
        if pronoun is not None and self.chance(0.4):
            return self.copula(pronoun, tense)
        clause = self.clause(pronoun, tense=tense)
        if tense == PRESENT and self.chance(0.2):
            return replace(clause, modal=self.pick(MODALS))
        return _negated(clause) if self.chance(0.1) else clause

    # Sentences

    def sentence(self) -> Pair:
        """One sentence of a random construction: (German, English)."""
        return self.weighted(_CONSTRUCTIONS)(self)

    def statement(self) -> Pair:
        """Die Frau kauft heute einen Apfel."""
        clause = self.rich_clause()
        return write_out(german_statement(clause), "."), write_out(english_statement(clause), ".")

    def time_first(self) -> Pair:
        """Heute kauft die Frau einen Apfel."""
        clause = self.rich_clause(with_time=True)
        return write_out(german_time_first(clause), "."), write_out(english_time_first(clause), ".")

    def object_first(self) -> Pair:
        """Den Apfel kauft die Frau: where the article can be nothing but an accusative."""
        clause = self.clause()
        while clause.dative is not None or not _is_clear_accusative(clause.accusative):
            clause = self.clause()
        return write_out(german_object_first(clause), "."), write_out(
            english_statement(clause), "."
        )

    def description(self) -> Pair:
        """Das Haus ist nicht alt. Gestern war das Kind krank."""
        clause = self.copula()
        if self.chance(0.15):
            clause = _negated(clause)
        if self.chance(0.7):
            return write_out(german_statement(clause), "."), write_out(
                english_statement(clause), "."
            )
        clause = replace(clause, time=self.time(clause))
        return write_out(german_time_first(clause), "."), write_out(english_time_first(clause), ".")

    def yes_no_question(self) -> Pair:
        """Kauft die Frau einen Apfel?"""
        clause = self.copula() if self.chance(0.2) else self.rich_clause()
        while _is_negative(clause):
            clause = self.rich_clause()
        return write_out(german_question(clause), "?"), write_out(english_question(clause), "?")

    def why_question(self) -> Pair:
        """Warum kauft die Frau heute keinen Apfel?"""
        clause = self.copula() if self.chance(0.2) else self.rich_clause()
        return (
            write_out(german_question(clause, "warum"), "?"),
            write_out(english_question(clause, "why"), "?"),
        )

    def when_or_where_question(self) -> Pair:
        """Wann kauft die Frau einen Apfel? Wo schläft der Hund?"""
        clause = self.clause()
        german, english = ("wann", "when") if self.chance(0.5) else ("wo", "where")
        while german == "wo" and (clause.direction or not clause.verb.takes_place):
            clause = self.clause()
        if clause.tense == PRESENT and self.chance(0.3):
            clause = replace(clause, modal=self.pick(MODALS))
        return (
            write_out(german_question(clause, german), "?"),
            write_out(english_question(clause, english), "?"),
        )

    def who_question(self) -> Pair:
        """Wer hat den Apfel gekauft?"""
        clause = replace(self.rich_clause(), subject=WHO)
        return write_out(german_statement(clause), "?"), write_out(english_statement(clause), "?")

    def reported_clause(self) -> Pair:
        """Der Mann sagt, dass er müde ist. Die Frau fragt, ob das Kind schläft."""
        conjunction = THAT if self.chance(0.75) else WHETHER
        verb = self.pick(THAT_VERBS if conjunction is THAT else (ASK, KNOW))
        tense, inner_tense = self.tenses(conjunction)
        matrix = self.clause(verb=verb, tense=tense)
        if conjunction is WHETHER and verb is KNOW:
            matrix = replace(_without_kein(matrix), negated=True)
        inner = self.next_clause(matrix.subject, inner_tense)
        return self.join(matrix, conjunction, inner)

    def tenses(self, conjunction: Conjunction) -> tuple[str, str]:
        """Tenses of a main clause and of its subordinate clause."""
        if not conjunction.allows_past:
            return PRESENT, PRESENT
        return self.pick(((PRESENT, PRESENT), (PAST, PAST), (PRESENT, PAST)))

    def join(self, main: Clause, conjunction: Conjunction, subordinate: Clause) -> Pair:
        """Main clause, comma (only in German), subordinate clause."""
        german = german_subordinate(conjunction.german, subordinate)
        english = english_subordinate(conjunction.english, subordinate)
        return (
            write_out([*german_statement(main), ",", *german], "."),
            write_out([*english_statement(main), *english], "."),
        )

    def subordinate_last(self) -> Pair:
        """Die Frau kauft einen Apfel, weil sie hungrig ist."""
        conjunction = self.pick(SUBORDINATORS)
        tense, inner_tense = self.tenses(conjunction)
        main = self.clause(tense=tense)
        return self.join(main, conjunction, self.next_clause(main.subject, inner_tense))

    def subordinate_first(self) -> Pair:
        """Weil die Frau hungrig ist, kauft sie einen Apfel."""
        conjunction = self.pick(SUBORDINATORS)
        tense, inner_tense = self.tenses(conjunction)
        if conjunction.allows_past and self.chance(0.4):
            inner = self.copula(self.subject("person"), tense=inner_tense)
        else:
            inner = self.clause(tense=inner_tense)
        main = self.next_clause(inner.subject, tense)
        german = german_subordinate(conjunction.german, inner)
        english = english_subordinate(conjunction.english, inner)
        return (
            write_out([*german, ",", *german_inverted(main)], "."),
            write_out([*english, ",", *english_statement(main)], "."),
        )

    def coordination(self) -> Pair:
        """Der Mann singt und die Frau tanzt. Der Mann singt, aber die Frau weint."""
        first = self.clause()
        second = self.next_clause(first.subject, first.tense)
        is_and = self.chance(0.5)
        german, english = (["und"], ["and"]) if is_and else ([",", "aber"], [",", "but"])
        return (
            write_out([*german_statement(first), *german, *german_statement(second)], "."),
            write_out([*english_statement(first), *english, *english_statement(second)], "."),
        )

    def relative_subject(self) -> Pair:
        """Der Mann, der den Apfel isst, lacht."""
        phrase = self.noun_phrase(_nouns("person"))
        relative = self.clause(NounPhrase(phrase.noun, "der", plural=phrase.plural))
        phrase = replace(phrase, relative=relative)
        main = self.copula(phrase) if self.chance(0.4) else self.clause(phrase)
        return write_out(german_statement(main), "."), write_out(english_statement(main), ".")

    def relative_object(self) -> Pair:
        """Der Apfel, den der Mann isst, ist süß."""
        relative = self.clause()
        while not _is_thing(relative.accusative):
            relative = self.clause()
        phrase = relative.accusative
        assert isinstance(phrase, NounPhrase)
        determiner = phrase.determiner if phrase.is_definite else "der"
        main = self.copula(replace(phrase, determiner=determiner, relative=relative))
        return write_out(german_statement(main), "."), write_out(english_statement(main), ".")


_CONSTRUCTIONS: tuple[tuple[Callable[[SentenceSampler], Pair], int], ...] = (
    (SentenceSampler.statement, 30),
    (SentenceSampler.time_first, 13),
    (SentenceSampler.object_first, 3),
    (SentenceSampler.description, 9),
    (SentenceSampler.yes_no_question, 9),
    (SentenceSampler.why_question, 2),
    (SentenceSampler.when_or_where_question, 3),
    (SentenceSampler.who_question, 2),
    (SentenceSampler.reported_clause, 8),
    (SentenceSampler.subordinate_last, 8),
    (SentenceSampler.subordinate_first, 5),
    (SentenceSampler.coordination, 3),
    (SentenceSampler.relative_subject, 3),
    (SentenceSampler.relative_object, 2),
)


def _nouns(kinds: str) -> list[Noun]:
    return [noun for noun in NOUNS if share_a_kind(noun.kinds, kinds)]


def _kinds_of(phrase: Phrase) -> str:
    return "person" if isinstance(phrase, Pronoun) else phrase.noun.kinds


def _others(subject: Phrase, case: str) -> list[Pronoun]:
    """Pronouns of a case that cannot mean the subject: ich neither with mich nor with uns."""
    pronouns = [pronoun for pronoun in PRONOUNS if getattr(pronoun, case)]
    if not isinstance(subject, Pronoun):
        return pronouns
    speakers = ("I", "we")
    return [
        pronoun
        for pronoun in pronouns
        if pronoun is not subject
        and not (subject.english in speakers and pronoun.english in speakers)
    ]


def _anaphor(phrase: Phrase) -> Pronoun | None:
    """The pronoun that takes up a person; None where English would have to know more (es)."""
    if isinstance(phrase, Pronoun):
        return phrase
    if phrase.determiner == "kein" or not share_a_kind(phrase.noun.kinds, "person"):
        return None
    if phrase.plural:
        return THEY
    return {"m": HE, "f": SHE, "n": None}[phrase.noun.gender]


P = TypeVar("P", NounPhrase, Phrase)


def _with_determiner(phrase: P) -> P:
    """The phrase with "der" for no determiner, where a bare plural would show no case."""
    if isinstance(phrase, NounPhrase) and not phrase.determiner:
        return replace(phrase, determiner="der")
    return phrase


def _is_kein(phrase: Phrase | None) -> bool:
    return isinstance(phrase, NounPhrase) and phrase.determiner == "kein"


def _is_negative(clause: Clause) -> bool:
    return clause.negated or clause.has_negative_object or _is_kein(clause.subject)


def _without_kein(clause: Clause) -> Clause:
    """The clause with "der" for "kein" in its subject."""
    subject = clause.subject
    if isinstance(subject, NounPhrase) and subject.determiner == "kein":
        return replace(clause, subject=replace(subject, determiner="der"))
    return clause


def _is_definite(phrase: Phrase | None) -> bool:
    return not isinstance(phrase, NounPhrase) or phrase.is_definite


def _negated(clause: Clause) -> Clause:
    """The clause with nicht, or with kein if its direct object is indefinite.

    Unchanged where German would prefer another wording: other arguments must be definite.
    """
    complements = (clause.governed, clause.direction, clause.place)
    phrases = [clause.subject, clause.dative, *(part.phrase for part in complements if part)]
    if not all(_is_definite(phrase) for phrase in phrases):
        return clause
    if isinstance(clause.accusative, NounPhrase) and not clause.accusative.is_definite:
        return replace(clause, accusative=replace(clause.accusative, determiner="kein"))
    return replace(clause, negated=True)


def _is_clear_accusative(phrase: Phrase | None) -> bool:
    """True for masculine singulars with an article, whose accusative differs (den, einen)."""
    return (
        isinstance(phrase, NounPhrase)
        and phrase.noun.gender == "m"
        and not phrase.plural
        and phrase.determiner != ""
    )


def _is_thing(phrase: Phrase | None) -> bool:
    return isinstance(phrase, NounPhrase) and not share_a_kind(phrase.noun.kinds, "person animal")
