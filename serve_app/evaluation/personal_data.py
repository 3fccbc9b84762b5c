"""Personal data out of conversations, replaced so that they keep their sense: whoever is ``[person-2]`` once is so throughout a
conversation, in questions, answers, arguments and results alike.

    e-mail addresses · phone numbers · IBANs · cards · IP and MAC addresses · credentials · ids of users · fields that hold such
    names that the conversation gives as such, that its addresses and ids are made of, and those of a list

What cannot be found: names that are only mentioned, postal addresses and dates of birth in running text, and what only together
with other knowledge points to somebody. So what comes out holds less of people, and is not anonymous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigError
from serve_app.evaluation.personal_names import (
    PERSON_FIELDS,
    Aliases,
    NameList,
    field_name,
    introduced,
    is_name,
    of_email,
    of_record,
    of_user_id,
)
from serve_app.evaluation.personal_patterns import EMAIL, Span, is_card, personal_spans
from serve_app.redaction import HIDDEN, is_secret, scrub

MAX_NAMES = 20_000
MAX_DEPTH = 32

_FIELDS: Mapping[str, str] = {
    "address": "address", "birthdate": "birthdate", "birthday": "birthdate", "dateofbirth": "birthdate", "dob": "birthdate",
    "fax": "phone", "faxnumber": "phone", "homeaddress": "address", "iban": "iban", "mobile": "phone",
    "mobilenumber": "phone", "mobilephone": "phone", "nationalid": "id-number", "passport": "id-number",
    "passportnumber": "id-number", "phone": "phone", "phonenumber": "phone", "postaladdress": "address",
    "socialsecuritynumber": "id-number", "ssn": "id-number", "street": "address", "streetaddress": "address",
    "taxid": "id-number", "telephone": "phone", "telephonenumber": "phone",
}  # fmt: skip
"""What stands in a field of that name, whatever it looks like."""


def read_names(path: Path) -> NameList:
    """People from a file: one a line, further names of theirs behind commas; lines that begin with # are remarks.

    Raises ConfigError where it cannot be read or is too long.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The names {path} cannot be read ({error}).") from error
    people = [line.split(",") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(people) > MAX_NAMES:
        raise ConfigError(f"The names {path} are more than {MAX_NAMES:,}; leave out whom conversations do not name.")
    return NameList(people)


class Pseudonyms:
    """What takes the place of personal data in one conversation: first all of it is learned, then all of it is replaced.

    ``user_ids`` are those of the conversation's user, who is ``[person-1]``; ``listed`` are people who may be named in it,
    ``person_fields`` further fields of tools' results in which people stand.
    """

    def __init__(
        self, user_ids: Iterable[str] = (), listed: NameList | None = None, person_fields: Iterable[str] = ()
    ) -> None:
        self._aliases = Aliases()
        self._given: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()
        """How many places of each kind have been replaced so far."""
        self._listed = listed or NameList()
        self._person_fields = PERSON_FIELDS | {field_name(name) for name in person_fields}
        self._words: set[str] = set()
        self._aliases.add([name for user_id in user_ids for name in of_user_id(user_id)])

    def learn(self, value: Any, field: str = "") -> None:
        """Takes note of the people that a text, or what a tool was given or gave, tells of."""
        self._learn(value, field, MAX_DEPTH)

    def text(self, text: str) -> str:
        """The text without what is personal."""
        clean = scrub(text)
        if clean != text:
            self.replaced["secret"] += max(1, clean.count(HIDDEN) - text.count(HIDDEN))
        self._learn_parts()
        people = (Span(start, end, f"person-{number}") for start, end, number in self._aliases.find(clean))
        pieces: list[str] = []
        done = 0
        for span in personal_spans(clean, people):
            pieces += [clean[done : span.start], self._instead(span.kind, clean[span.start : span.end])]
            done = span.end
        pieces.append(clean[done:])
        return "".join(pieces)

    def value(self, value: Any, field: str = "") -> Any:
        """JSON without what is personal, in texts as in names of fields; ``field`` is where it stands."""
        return self._value(value, field, MAX_DEPTH)

    def _learn(self, value: Any, field: str, depth: int) -> None:
        if isinstance(value, str):
            for name in introduced(value):
                self._aliases.add([name])
            if self._listed:
                self._words |= self._listed.words_in(value)
                for names in self._listed.named_in(value):
                    self._aliases.add(names)
            for address in EMAIL.findall(value) if "@" in value else ():
                self._aliases.add(of_email(address))
            if field_name(field) in self._person_fields and is_name(value):
                self._aliases.add([value])
        elif depth > 0 and isinstance(value, Mapping):
            for names in of_record(value):
                self._aliases.add(names)
            for key, each in value.items():
                self._learn(key, "", depth - 1)
                self._learn(each, str(key), depth - 1)
        elif depth > 0 and isinstance(value, list | tuple):
            for each in value:
                self._learn(each, field, depth - 1)

    def _learn_parts(self) -> None:
        """Parts of listed names that stand alone, and are nobody's whom the conversation names in full."""
        for word in sorted(self._words):
            if not self._aliases.knows(word):
                self._aliases.add((*self._listed.first_with(word), word))
        self._words.clear()

    def _value(self, value: Any, field: str, depth: int) -> Any:
        if isinstance(value, str):
            if value and field and is_secret(field):
                self.replaced["secret"] += 1
                return HIDDEN
            kind = _FIELDS.get(field_name(field))
            clean = self.text(value)
            return self._instead(kind, value) if kind and clean == value and value.strip() else clean
        if isinstance(value, int) and not isinstance(value, bool):
            digits = str(value)
            return self._instead("card", digits) if _is_card_number(digits) else value
        if depth <= 0:
            return None if isinstance(value, Mapping | list | tuple) else value
        if isinstance(value, Mapping):
            return {
                self.text(key) if isinstance(key, str) else key: self._value(each, str(key), depth - 1)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._value(each, field, depth - 1) for each in value]
        return value

    def _instead(self, kind: str, found: str) -> str:
        base, _, number = kind.partition("person-")
        if number:
            self.replaced["person"] += 1
            return f"[{kind}]"
        self.replaced[base] += 1
        key = (kind, "".join(found.split()).casefold() if kind == "email" else _bare(found))
        if key not in self._given:
            self._numbers[kind] += 1
            self._given[key] = f"[{kind}-{self._numbers[kind]}]"
        return self._given[key]


def _bare(found: str) -> str:
    """The same number however its groups are written."""
    return "".join(char for char in found if char.isalnum()).casefold() or found


def _is_card_number(digits: str) -> bool:
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and is_card(digits)
