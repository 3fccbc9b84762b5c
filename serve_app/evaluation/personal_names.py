"""Whose names a conversation gives away: how they are introduced in a text, in which fields of a tool's result they stand, and
which of their parts stand for them elsewhere. Without a model nobody can know that a word is a name; nothing is guessed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serve_app.evaluation.personal_patterns import EMAIL

MAX_NAME_CHARS = 80
MAX_ALIASES = 4_000
"""Of one conversation; a list of employees is long, and none is that long."""

PERSON_FIELDS = frozenset(
    {
        "accountmanager", "accountowner", "assignedto", "assignee", "attendee", "author", "boss", "colleague", "contact",
        "contactname", "contactperson", "customercontact", "departmenthead", "displayname", "employee", "employeename",
        "familyname", "firstname", "fullname", "givenname", "head", "interviewer", "lastname", "manager", "managername",
        "organizer", "owner", "ownername", "person", "personname", "recipient", "reportsto", "representative", "salesrep",
        "sender", "supervisor", "surname", "teamlead", "username",
    }
)  # fmt: skip
"""Names of fields whose values are people, as ``field_name`` gives them."""
_EMAIL_FIELDS = frozenset({"email", "emailaddress", "mail", "workemail", "emailid"})

_NO_NAMES = frozenset(
    {
        "a", "account", "accounts", "admin", "administrator", "all", "an", "and", "anonymous", "api", "app", "are",
        "assistant", "at", "bank", "bot", "business", "can", "company", "contact", "customer", "customers", "demo", "dev",
        "developer", "development", "dr", "everybody", "everyone", "for", "frau", "friend", "from", "guest", "hello", "help",
        "herr", "herrn", "hi", "hr", "i", "in", "info", "is", "it", "jobs", "local", "madam", "madame", "mail", "management",
        "manager", "marketing", "me", "miss", "mme", "monsieur", "mr", "mrs", "ms", "mx", "my", "news", "no", "noreply",
        "not", "of", "office", "on", "our", "owner", "parley", "people", "person", "please", "postmaster", "press", "prof",
        "public", "reply", "root", "sales", "security", "service", "sir", "support", "system", "team", "test", "tester",
        "that", "the", "there", "they", "this", "to", "unknown", "user", "users", "we", "web", "webmaster", "who", "with",
        "you", "your",
    }
)  # fmt: skip
_TITLES = frozenset(
    {"mr", "mrs", "ms", "miss", "mx", "dr", "prof", "herr", "herrn", "frau", "mme", "monsieur", "madame"}
)
_EVERYDAY = frozenset(
    {
        "amber", "april", "art", "august", "baker", "banks", "berry", "best", "bill", "black", "bond", "brown", "bush",
        "case", "cash", "chase", "cherry", "cook", "cross", "crystal", "dawn", "day", "dean", "don", "drew", "earl", "eve",
        "faith", "field", "fields", "frank", "gene", "grace", "grant", "gray", "green", "guy", "hill", "hope", "ivy", "jack",
        "joy", "june", "king", "lake", "lance", "lane", "large", "lily", "little", "long", "love", "mark", "marks", "martin",
        "may", "miles", "moss", "olive", "page", "park", "pat", "penny", "price", "ray", "rice", "rich", "rivers", "rob",
        "robin", "rose", "ruby", "sandy", "sky", "small", "stone", "strong", "sue", "summer", "victor", "wade", "walker",
        "ward", "white", "will", "wood", "woods", "young",
    }
)  # fmt: skip
"""Words that are names as well: they stand for somebody only where they are written with a capital."""

_WORD = r"[^\W\d_][\w'’.-]{0,39}"
_WORDS = rf"({_WORD}(?: {_WORD}){{0,3}})"
_INTRODUCED = re.compile(
    r"\b(?:my (?:full )?name is|my name['’]s|i am called|mein name ist|ich hei(?:ß|ss)e|je m['’]appelle|mon nom est|me llamo|"
    rf"mi nombre es|mi chiamo|il mio nome è|meu nome é) {_WORDS}",
    re.IGNORECASE,
)
_TITLED = re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Herrn?|Frau|Mme|Madame|Monsieur|Señora?|Signora?)\b\.? {_WORDS}")
_ADDRESSED = re.compile(rf"^(?:Dear|Hi|Hello|Hey|Hallo|Liebe[r]?|Bonjour|Hola|Ciao) {_WORDS}(?=[,!:]|$)", re.MULTILINE)
_SIGNED = re.compile(
    r"^(?:(?:best|kind|warm|many)(?: regards| wishes| thanks)?|regards|cheers|thanks|thank you|sincerely|yours(?: \w+)?|"
    r"mit freundlichen gr(?:ü|ue)(?:ß|ss)en|(?:viele|beste|liebe) gr(?:ü|ue)(?:ß|ss)e|cordialement|saludos)"
    rf"[,.!]?\s{{1,4}}{_WORDS}\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_LETTERS = re.compile(r"[^\W\d_]{2,40}")
_NAME = re.compile(rf"{_WORD}(?: {_WORD}){{0,3}}")


def introduced(text: str) -> Iterator[str]:
    """Names that a text gives as such: said of oneself, behind a title, addressed at its beginning, signed at its end."""
    for match in _INTRODUCED.finditer(text):
        words = _leading_capitals(match[1])
        # Who writes all in small letters writes names so, too.
        first = match[1].split(" ")[0]
        yield from [words] if words else [first] if is_name(first, capital=False) else []
    for pattern in (_TITLED, _ADDRESSED, _SIGNED):
        for match in pattern.finditer(text):
            words = _leading_capitals(match[1])
            if words and is_name(words):
                yield words


def field_name(name: str) -> str:
    """A field's name without what stands between its words."""
    return "".join(char for char in name.lower() if char.isalnum())


def of_record(record: Mapping[Any, Any]) -> Iterator[tuple[str, ...]]:
    """The names of whom a record is about: its ``name``, where an e-mail address beside it says that it is somebody's."""
    fields = {
        field_name(key): value for key, value in record.items() if isinstance(key, str) and isinstance(value, str)
    }
    emails = [fields[name] for name in _EMAIL_FIELDS if name in fields and EMAIL.fullmatch(fields[name])]
    if emails and is_name(name := fields.get("name", "")):
        yield (name, *of_email(emails[0]))


def of_email(address: str) -> tuple[str, ...]:
    """The name that an address is made of (``maria.keller@…``), if it is made of one."""
    parts = [part for part in re.split(r"[._+-]+", address.partition("@")[0]) if part]
    letters = all(part.isalpha() and len(part) > 1 for part in parts)
    if not 2 <= len(parts) <= 4 or not letters or any(part.lower() in _NO_NAMES for part in parts):
        return ()
    return (" ".join(part.capitalize() for part in parts),)


def of_user_id(user_id: str) -> tuple[str, ...]:
    """What a user's id gives away: itself, and the words it is made of."""
    local = user_id.partition("@")[0]
    parts = tuple(part for part in re.split(r"[._+@|/\\:-]+", local) if part.isalpha() and len(part) > 2)
    names = (user_id, *((" ".join(parts),) if len(parts) > 1 else ()), *parts)
    return tuple(name for name in dict.fromkeys(names) if name.lower() not in _NO_NAMES and len(name) > 1)


def is_name(value: str, *, capital: bool = True) -> bool:
    """Whether it can be a person's name: a few words of letters, none of them one that no name has."""
    if len(value) > MAX_NAME_CHARS or not _NAME.fullmatch(value):
        return False
    words = value.split(" ")
    if any(word.lower().rstrip(".") in _NO_NAMES or any(char.isdigit() for char in word) for word in words):
        return False
    return len(words[0]) > 1 and (not capital or words[0][0].isupper())


class NameList:
    """People who are known beforehand, each by all of their names, and quick to find in a text however many they are."""

    def __init__(self, people: Iterable[Iterable[str]] = ()) -> None:
        given = (tuple(spaced for name in names if (spaced := " ".join(name.split()))) for names in people)
        self._people = [names for names in given if names]
        self._by_word: dict[str, list[int]] = {}
        for number, names in enumerate(self._people):
            for word in {word for name in names for word in _words(name)}:
                self._by_word.setdefault(word, []).append(number)

    def __bool__(self) -> bool:
        return bool(self._people)

    def words_in(self, text: str) -> set[str]:
        """The words of the text that are part of a listed name, in small letters."""
        return _words(text) & self._by_word.keys()

    def named_in(self, text: str) -> Iterator[tuple[str, ...]]:
        """Those of whom a whole name of several words stands in the text."""
        spaced = " ".join(text.casefold().split())
        for number in sorted({number for word in self.words_in(text) for number in self._by_word[word]}):
            names = self._people[number]
            if any(" " in name and name.casefold() in spaced for name in names):
                yield names

    def first_with(self, word: str) -> tuple[str, ...]:
        """The names of the first of those who have that word in one."""
        return self._people[self._by_word[word][0]]


class Aliases:
    """The names known in one conversation, each with the number of the person it stands for."""

    def __init__(self) -> None:
        self._people: dict[str, int] = {}
        self._capitals: set[str] = set()
        self._count = 0
        self._pattern: re.Pattern[str] | None = None

    def add(self, names: Iterable[str]) -> int:
        """One person, by all of these names and their parts; who is known already by one of them is meant. Returns its number, or
        0 where no name is left."""
        given = [" ".join(name.split()) for name in names if name.strip()]
        if not given or len(self._people) >= MAX_ALIASES:
            return 0
        number = next((self._people[name.casefold()] for name in given if name.casefold() in self._people), 0)
        if not number:
            number = self._count = self._count + 1
        for name in given:
            self._learn(name, number)
            words = name.split(" ")
            for word in words if len(words) > 1 else ():
                bare = word.strip(".'’-")
                if len(bare) > 1 and bare.lower() not in _NO_NAMES and bare.isalpha():
                    self._learn(bare, number)
        return number

    def knows(self, name: str) -> bool:
        return name.casefold() in self._people

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Where somebody is named: start, end, and whose number."""
        if not self._people:
            return
        for match in self._compiled().finditer(text):
            name = " ".join(match[0].split()).casefold()
            if name in self._capitals and not match[0][0].isupper():
                continue
            yield match.start(), match.end(), self._people[name]

    def _learn(self, name: str, number: int) -> None:
        key = name.casefold()
        if key in self._people:
            return
        self._people[key] = number
        self._pattern = None
        if key in _EVERYDAY or len(key) < 3:
            self._capitals.add(key)

    def _compiled(self) -> re.Pattern[str]:
        if self._pattern is None:
            # The longest first: a whole name is one person, not its parts.
            names = sorted(self._people, key=lambda name: (-len(name), name))
            choices = "|".join(r"\s+".join(map(re.escape, name.split(" "))) for name in names)
            self._pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
        return self._pattern


def _leading_capitals(words: str) -> str:
    """The name at the beginning of some words, without titles before it and what belongs to it behind."""
    taken: list[str] = []
    for word in words.split(" "):
        bare = re.sub(r"['’]s?$", "", word.rstrip(".,"))
        if not taken and bare.lower() in _TITLES:
            continue
        if not bare[:1].isupper() or bare.lower() in _NO_NAMES:
            break
        taken.append(bare)
        if bare != word and len(bare) > 1:
            break  # the end of a sentence, or of what the name does there
    return " ".join(taken)


def _words(text: str) -> set[str]:
    return {word for word in _LETTERS.findall(text.casefold()) if word not in _NO_NAMES}
