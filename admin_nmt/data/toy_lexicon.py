"""Lexicon of the toy German-English corpus: words, their forms and what they combine with.

Every word says which `kinds` of things it is (nouns) or goes with (verbs, adjectives): words of
one string, separated by spaces. `toy_syntax` turns the entries into phrases and clauses;
`toy_grammar` chooses them.
"""

from dataclasses import dataclass

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


NOUNS = (
    Noun("Mann", "m", "Männer", "man", "men", "person", is_owned=False),
    Noun("Frau", "f", "Frauen", "woman", "women", "person", is_owned=False),
    Noun("Kind", "n", "Kinder", "child", "children", "person"),
    Noun("Junge", "m", "Jungen", "boy", "boys", "person", oblique="Jungen"),
    Noun("Mädchen", "n", "Mädchen", "girl", "girls", "person"),
    Noun("Lehrer", "m", "Lehrer", "teacher", "teachers", "person"),
    Noun("Arzt", "m", "Ärzte", "doctor", "doctors", "person"),
    Noun("Nachbar", "m", "Nachbarn", "neighbour", "neighbours", "person", oblique="Nachbarn"),
    Noun("Freund", "m", "Freunde", "friend", "friends", "person"),
    Noun("Schwester", "f", "Schwestern", "sister", "sisters", "person"),
    Noun("Bruder", "m", "Brüder", "brother", "brothers", "person"),
    Noun("Tante", "f", "Tanten", "aunt", "aunts", "person"),
    Noun("Onkel", "m", "Onkel", "uncle", "uncles", "person"),
    Noun("Student", "m", "Studenten", "student", "students", "person", oblique="Studenten"),
    Noun("Königin", "f", "Königinnen", "queen", "queens", "person"),
    Noun("Künstlerin", "f", "Künstlerinnen", "artist", "artists", "person"),
    Noun("Hund", "m", "Hunde", "dog", "dogs", "animal"),
    Noun("Katze", "f", "Katzen", "cat", "cats", "animal"),
    Noun("Pferd", "n", "Pferde", "horse", "horses", "animal"),
    Noun("Vogel", "m", "Vögel", "bird", "birds", "animal"),
    Noun("Kuh", "f", "Kühe", "cow", "cows", "animal"),
    Noun("Maus", "f", "Mäuse", "mouse", "mice", "animal"),
    Noun("Bär", "m", "Bären", "bear", "bears", "animal", oblique="Bären"),
    Noun("Apfel", "m", "Äpfel", "apple", "apples", "food fruit"),
    Noun("Birne", "f", "Birnen", "pear", "pears", "food fruit"),
    Noun("Orange", "f", "Orangen", "orange", "oranges", "food fruit"),
    Noun("Kartoffel", "f", "Kartoffeln", "potato", "potatoes", "food cookable"),
    Noun("Ei", "n", "Eier", "egg", "eggs", "food cookable"),
    Noun("Suppe", "f", "Suppen", "soup", "soups", "food cookable"),
    Noun("Kuchen", "m", "Kuchen", "cake", "cakes", "food"),
    Noun("Kaffee", "m", "", "coffee", "", "drink"),
    Noun("Tee", "m", "", "tea", "", "drink"),
    Noun("Milch", "f", "", "milk", "", "drink"),
    Noun("Wasser", "n", "", "water", "", "drink"),
    Noun("Buch", "n", "Bücher", "book", "books", "readable writable"),
    Noun("Zeitung", "f", "Zeitungen", "newspaper", "newspapers", "readable"),
    Noun("Brief", "m", "Briefe", "letter", "letters", "readable writable"),
    Noun("Hut", "m", "Hüte", "hat", "hats", "clothes"),
    Noun("Mantel", "m", "Mäntel", "coat", "coats", "clothes"),
    Noun("Hemd", "n", "Hemden", "shirt", "shirts", "clothes"),
    Noun("Kleid", "n", "Kleider", "dress", "dresses", "clothes"),
    Noun("Uhr", "f", "Uhren", "clock", "clocks", "portable"),
    Noun("Schlüssel", "m", "Schlüssel", "key", "keys", "portable"),
    Noun("Ring", "m", "Ringe", "ring", "rings", "portable"),
    Noun("Bild", "n", "Bilder", "picture", "pictures", "portable"),
    Noun("Blume", "f", "Blumen", "flower", "flowers", "portable"),
    Noun("Messer", "n", "Messer", "knife", "knives", "portable"),
    Noun("Tasche", "f", "Taschen", "bag", "bags", "luggage openable"),
    Noun("Koffer", "m", "Koffer", "suitcase", "suitcases", "luggage openable"),
    Noun("Kiste", "f", "Kisten", "box", "boxes", "luggage openable"),
    Noun("Fenster", "n", "Fenster", "window", "windows", "openable"),
    Noun("Tür", "f", "Türen", "door", "doors", "openable"),
    Noun("Lampe", "f", "Lampen", "lamp", "lamps", "device"),
    Noun("Fernseher", "m", "Fernseher", "television", "televisions", "device"),
    Noun("Computer", "m", "Computer", "computer", "computers", "device"),
    Noun("Auto", "n", "Autos", "car", "cars", "vehicle"),
    Noun("Fahrrad", "n", "Fahrräder", "bicycle", "bicycles", "vehicle"),
    Noun("Haus", "n", "Häuser", "house", "houses", "place building"),
    Noun("Schule", "f", "Schulen", "school", "schools", "place building"),
    Noun("Hotel", "n", "Hotels", "hotel", "hotels", "place building"),
    Noun("Museum", "n", "Museen", "museum", "museums", "place building sight"),
    Noun("Garten", "m", "Gärten", "garden", "gardens", "place"),
    Noun("Park", "m", "Parks", "park", "parks", "place sight"),
    Noun("Stadt", "f", "Städte", "city", "cities", "place town sight"),
    Noun("Dorf", "n", "Dörfer", "village", "villages", "place town sight"),
    Noun("Wald", "m", "Wälder", "forest", "forests", "place town"),
    Noun("Küche", "f", "Küchen", "kitchen", "kitchens", "place room"),
    Noun("Zimmer", "n", "Zimmer", "room", "rooms", "place room"),
    Noun("Büro", "n", "Büros", "office", "offices", "place room"),
)

ADJECTIVES = (
    Adjective("alt", "old", "person animal readable clothes device vehicle building portable"),
    Adjective("neu", "new", "readable clothes device vehicle building luggage portable"),
    Adjective("jung", "young", "person animal"),
    Adjective("klein", "small", "person animal fruit place portable luggage openable"),
    Adjective("groß", "big", "animal place luggage openable vehicle"),
    Adjective("müde", "tired", "person animal", stem="müd"),
    Adjective("hungrig", "hungry", "person animal"),
    Adjective("glücklich", "happy", "person"),
    Adjective("traurig", "sad", "person"),
    Adjective("reich", "rich", "person"),
    Adjective("krank", "sick", "person animal"),
    Adjective("ehrlich", "honest", "person"),
    Adjective("schnell", "fast", "vehicle animal"),
    Adjective("schwarz", "black", "animal clothes luggage vehicle", is_gradable=False),
    Adjective("rot", "red", "fruit clothes luggage vehicle", is_gradable=False),
    Adjective("frisch", "fresh", "food drink"),
    Adjective("süß", "sweet", "fruit"),
    Adjective("kalt", "cold", "drink cookable room"),
    Adjective("warm", "warm", "cookable clothes room"),
    Adjective("gut", "good", "food drink readable"),
    Adjective("schön", "beautiful", "clothes place portable"),
    Adjective("teuer", "expensive", "clothes device vehicle portable drink", stem="teur"),
    Adjective("schwer", "heavy", "luggage device"),
    Adjective("leer", "empty", "luggage room building", is_gradable=False),
    Adjective("kaputt", "broken", "device vehicle", is_gradable=False),
    Adjective("interessant", "interesting", "readable sight"),
    Adjective("ruhig", "quiet", "place"),
    Adjective("dunkel", "dark", "room building", stem="dunkl"),
)

PRONOUNS = (
    Pronoun("ich", "mich", "mir", "I", "me", 0),
    Pronoun("du", "dich", "dir", "you", "you", 1),
    Pronoun("er", "ihn", "ihm", "he", "him", 2),
    Pronoun("sie", "", "ihr", "she", "her", 2),
    Pronoun("wir", "uns", "uns", "we", "us", 3),
    Pronoun("sie", "", "ihnen", "they", "them", 3),
)
HE, SHE, THEY = PRONOUNS[2], PRONOUNS[3], PRONOUNS[5]
WHO = Pronoun("wer", "", "", "who", "", 2)

PLACES = (
    Preposition("in", DATIVE, "in", "place"),
    Preposition("vor", DATIVE, "in front of", "building"),
    Preposition("hinter", DATIVE, "behind", "building"),
    Preposition("neben", DATIVE, "next to", "building"),
)
DIRECTIONS = (
    Preposition("in", ACCUSATIVE, "into", "place"),
    Preposition("zu", DATIVE, "to", "person building"),
    Preposition("aus", DATIVE, "out of", "place"),
)
COMPANY = (
    Preposition("mit", DATIVE, "with", "person"),
    Preposition("ohne", ACCUSATIVE, "without", "person"),
)
FOR = Preposition("für", ACCUSATIVE, "for", "person")

BE = Verb("sein bin bist ist gewesen", "be is was been", plural="sind")

TRANSITIVE_VERBS = (
    Verb(
        "kaufen kaufe kaufst kauft gekauft",
        "buy buys bought bought",
        accusative="food drink readable clothes device vehicle portable luggage",
        takes_beneficiary=True,
    ),
    Verb(
        "verkaufen verkaufe verkaufst verkauft verkauft",
        "sell sells sold sold",
        accusative="food clothes device vehicle animal",
    ),
    Verb(
        "sehen sehe siehst sieht gesehen",
        "see sees saw seen",
        subject="person animal",
        accusative="person animal vehicle sight",
        takes_place=False,
    ),
    Verb(
        "suchen suche suchst sucht gesucht",
        "look looks looked looked",
        accusative="person animal portable luggage clothes",
        english_preposition="for",
    ),
    Verb(
        "finden finde findest findet gefunden",
        "find finds found found",
        accusative="portable luggage animal readable",
    ),
    Verb(
        "vergessen vergesse vergisst vergisst vergessen",
        "forget forgets forgot forgotten",
        accusative="portable luggage readable",
    ),
    Verb(
        "essen esse isst isst gegessen",
        "eat eats ate eaten",
        subject="person animal",
        accusative="food",
    ),
    Verb("trinken trinke trinkst trinkt getrunken", "drink drinks drank drunk", accusative="drink"),
    Verb(
        "kochen koche kochst kocht gekocht",
        "cook cooks cooked cooked",
        accusative="cookable",
        takes_beneficiary=True,
    ),
    Verb("lesen lese liest liest gelesen", "read reads read read", accusative="readable"),
    Verb(
        "schreiben schreibe schreibst schreibt geschrieben",
        "write writes wrote written",
        accusative="writable",
        takes_beneficiary=True,
    ),
    Verb(
        "waschen wasche wäschst wäscht gewaschen",
        "wash washes washed washed",
        accusative="clothes vehicle",
    ),
    Verb(
        "tragen trage trägst trägt getragen",
        "carry carries carried carried",
        accusative="luggage",
        takes_beneficiary=True,
    ),
    Verb(
        "besuchen besuche besuchst besucht besucht",
        "visit visits visited visited",
        accusative="person sight",
        takes_place=False,
    ),
    Verb("treffen treffe triffst trifft getroffen", "meet meets met met", accusative="person"),
    Verb(
        "reparieren repariere reparierst repariert repariert",
        "repair repairs repaired repaired",
        accusative="device vehicle",
        takes_beneficiary=True,
    ),
    Verb(
        "putzen putze putzt putzt geputzt",
        "clean cleans cleaned cleaned",
        accusative="room",
        takes_place=False,
    ),
    Verb("füttern füttere fütterst füttert gefüttert", "feed feeds fed fed", accusative="animal"),
    Verb(
        "jagen jage jagst jagt gejagt",
        "chase chases chased chased",
        subject="animal",
        accusative="animal",
    ),
)

SEPARABLE_VERBS = (
    Verb(
        "machen mache machst macht aufgemacht",
        "open opens opened opened",
        accusative="openable",
        particle="auf",
    ),
    Verb(
        "machen mache machst macht zugemacht",
        "close closes closed closed",
        accusative="openable",
        particle="zu",
    ),
    Verb(
        "rufen rufe rufst ruft angerufen",
        "call calls called called",
        accusative="person",
        particle="an",
    ),
    Verb(
        "holen hole holst holt abgeholt",
        "pick picks picked picked",
        accusative="person",
        particle="ab",
        english_particle="up",
    ),
    Verb(
        "laden lade lädst lädt eingeladen",
        "invite invites invited invited",
        accusative="person",
        particle="ein",
        takes_place=False,
    ),
    Verb(
        "schalten schalte schaltest schaltet eingeschaltet",
        "turn turns turned turned",
        accusative="device",
        particle="ein",
        english_particle="on",
    ),
    Verb(
        "schalten schalte schaltest schaltet ausgeschaltet",
        "turn turns turned turned",
        accusative="device",
        particle="aus",
        english_particle="off",
    ),
    Verb(
        "ziehen ziehe ziehst zieht angezogen",
        "put puts put put",
        accusative="clothes",
        particle="an",
        english_particle="on",
    ),
    Verb(
        "räumen räume räumst räumt aufgeräumt",
        "tidy tidies tidied tidied",
        accusative="room",
        particle="auf",
        english_particle="up",
        takes_place=False,
    ),
    Verb(
        "werfen werfe wirfst wirft weggeworfen",
        "throw throws threw thrown",
        accusative="readable portable food",
        particle="weg",
        english_particle="away",
        takes_place=False,
    ),
    Verb(
        "bringen bringe bringst bringt mitgebracht",
        "bring brings brought brought",
        accusative="food drink portable",
        particle="mit",
        english_particle="along",
        takes_place=False,
    ),
    Verb(
        "stehen stehe stehst steht aufgestanden",
        "get gets got got",
        particle="auf",
        english_particle="up",
        auxiliary="sein",
        takes_place=False,
    ),
    Verb(
        "kommen komme kommst kommt angekommen",
        "arrive arrives arrived arrived",
        particle="an",
        auxiliary="sein",
        takes_company=True,
    ),
    Verb(
        "schlafen schlafe schläfst schläft eingeschlafen",
        "fall falls fell fallen",
        subject="person animal",
        particle="ein",
        english_particle="asleep",
        auxiliary="sein",
    ),
    Verb(
        "sehen sehe siehst sieht ferngesehen",
        "watch watches watched watched",
        particle="fern",
        english_particle="television",
        takes_company=True,
    ),
    Verb(
        "kaufen kaufe kaufst kauft eingekauft",
        "go goes went gone",
        particle="ein",
        english_particle="shopping",
        takes_company=True,
    ),
)

INTRANSITIVE_VERBS = (
    Verb(
        "schlafen schlafe schläfst schläft geschlafen",
        "sleep sleeps slept slept",
        subject="person animal",
    ),
    Verb("lachen lache lachst lacht gelacht", "laugh laughs laughed laughed"),
    Verb(
        "arbeiten arbeite arbeitest arbeitet gearbeitet",
        "work works worked worked",
        takes_company=True,
    ),
    Verb("tanzen tanze tanzt tanzt getanzt", "dance dances danced danced", takes_company=True),
    Verb("singen singe singst singt gesungen", "sing sings sang sung", takes_company=True),
    Verb(
        "spielen spiele spielst spielt gespielt",
        "play plays played played",
        subject="person animal",
        takes_company=True,
    ),
    Verb(
        "schwimmen schwimme schwimmst schwimmt geschwommen",
        "swim swims swam swum",
        subject="person animal",
        auxiliary="sein",
        takes_place=False,
    ),
    Verb(
        "warten warte wartest wartet gewartet",
        "wait waits waited waited",
        governed=Preposition("auf", ACCUSATIVE, "for", "person"),
    ),
    Verb(
        "sprechen spreche sprichst spricht gesprochen",
        "talk talks talked talked",
        governed=Preposition("mit", DATIVE, "to", "person"),
    ),
    Verb(
        "denken denke denkst denkt gedacht",
        "think thinks thought thought",
        governed=Preposition("an", ACCUSATIVE, "of", "person animal"),
        takes_place=False,
    ),
)

MOTION_VERBS = (
    Verb(
        "gehen gehe gehst geht gegangen",
        "go goes went gone",
        direction="place person",
        auxiliary="sein",
        takes_company=True,
    ),
    Verb(
        "laufen laufe läufst läuft gelaufen",
        "run runs ran run",
        subject="person animal",
        direction="place person",
        auxiliary="sein",
    ),
    Verb(
        "fahren fahre fährst fährt gefahren",
        "drive drives drove driven",
        direction="town person",
        auxiliary="sein",
        takes_company=True,
    ),
)

DATIVE_VERBS = (
    Verb("helfen helfe hilfst hilft geholfen", "help helps helped helped", dative="person"),
    Verb("danken danke dankst dankt gedankt", "thank thanks thanked thanked", dative="person"),
    Verb(
        "folgen folge folgst folgt gefolgt",
        "follow follows followed followed",
        subject="person animal",
        dative="person animal",
        auxiliary="sein",
    ),
    Verb(
        "hören höre hörst hört zugehört",
        "listen listens listened listened",
        dative="person",
        particle="zu",
        english_preposition="to",
    ),
)

GIVING_VERBS = (
    Verb(
        "geben gebe gibst gibt gegeben",
        "give gives gave given",
        accusative="food drink readable portable luggage",
        dative="person",
    ),
    Verb(
        "zeigen zeige zeigst zeigt gezeigt",
        "show shows showed shown",
        accusative="readable portable vehicle animal clothes building",
        dative="person",
    ),
    Verb(
        "bringen bringe bringst bringt gebracht",
        "bring brings brought brought",
        accusative="food drink portable luggage",
        dative="person",
        takes_place=False,
    ),
    Verb(
        "erklären erkläre erklärst erklärt erklärt",
        "explain explains explained explained",
        accusative="readable device",
        dative="person",
        english_preposition="to",
    ),
    Verb(
        "lesen lese liest liest vorgelesen",
        "read reads read read",
        accusative="readable",
        dative="person",
        particle="vor",
    ),
)

# Verbs of saying and thinking that take a clause: with dass, or (the last two) with ob.
KNOW = Verb("wissen weiß weißt weiß gewusst", "know knows knew known")
ASK = Verb("fragen frage fragst fragt gefragt", "ask asks asked asked")
THAT_VERBS = (
    KNOW,
    Verb("glauben glaube glaubst glaubt geglaubt", "believe believes believed believed"),
    Verb("sagen sage sagst sagt gesagt", "say says said said"),
)

MODALS = (
    Modal("kann kannst kann können", "can can", is_auxiliary=True),
    Modal("soll sollst soll sollen", "should should", is_auxiliary=True),
    Modal("darf darfst darf dürfen", "may may", is_auxiliary=True),
    Modal("muss musst muss müssen", "have has", is_auxiliary=False),
    Modal("will willst will wollen", "want wants", is_auxiliary=False),
)

# Finite auxiliaries by person, and the only simple past of this grammar: sein.
AUXILIARIES = {"haben": "habe hast hat haben", "sein": "bin bist ist sind"}
PAST_OF_BE = "war warst war waren"

# Adverbials of time; German places them in front or in the middle, English in front or last. With
# those of the future the German present tense is an English future.
TIMES = (
    Adverb("heute", "today", "present past modal"),
    Adverb("gestern", "yesterday", "past"),
    Adverb("letzte Woche", "last week", "past"),
    Adverb("morgen", "tomorrow", "future modal"),
    Adverb("nächste Woche", "next week", "future modal"),
    Adverb("jeden Tag", "every day", "present past modal"),
    Adverb("am Abend", "in the evening", "present past modal"),
    Adverb("am Montag", "on Monday", "present past modal"),
    Adverb("im Winter", "in winter", "present past modal"),
)

# Adverbs of frequency; with a past tense they make an English present perfect.
FREQUENCIES = (
    Adverb("oft", "often", "present"),
    Adverb("immer", "always", "present"),
    Adverb("manchmal", "sometimes", "present"),
    Adverb("nie", "never", "present past"),
    Adverb("schon", "already", "past"),
)

BECAUSE = Conjunction("weil", "because", allows_past=True)
ALTHOUGH = Conjunction("obwohl", "although", allows_past=True)
WHEN = Conjunction("wenn", "when", allows_past=False)
BEFORE = Conjunction("bevor", "before", allows_past=False)
SUBORDINATORS = (BECAUSE, ALTHOUGH, WHEN, BEFORE)
THAT = Conjunction("dass", "that", allows_past=True)
WHETHER = Conjunction("ob", "whether", allows_past=True)
