"""Where personal data stands in a text, as far as its shape shows it: addresses, numbers, accounts. Names are ``personal_names``.

What looks alike is told apart by what can be checked: the check digits of IBANs and cards, whether an address of a computer is
one, whether digits are a date or an amount. Patterns only propose; every one of them reads a text in time linear to its length.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple


class Span(NamedTuple):
    """``kind`` is what stands there, from ``start`` to before ``end``."""

    start: int
    end: int
    kind: str


_USER_INFO = re.compile(r"(?<=://)[^/\s@\"'<>\[]{1,256}(?=@)")
EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]){11,30}(?!\w)")
_CARD = re.compile(r"(?<![\w.])[2-6](?:[ -]?[0-9]){12,18}(?!\w)")
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![\w:-])")
_PHONE = re.compile(r"(?<![\w.,/:#%+-])(?:\+|\()?[0-9](?:[0-9 ().\-/\u00a0\u2011\u2013]{4,24})[0-9](?![\w%]|[.,][0-9])")
_LABEL = re.compile(
    r"(?:phone|telephone|telefon|tel|mobile|mobil|cell|fax|whatsapp|handy|natel|t[ée]l[ée]phone|tel[ée]fono)"
    r"(?: ?(?:number|no|nummer|nr))?\.?(?: is| ist|:)? ?$",
    re.IGNORECASE,
)
_DATES = (
    re.compile(r"(?:19|20)[0-9]{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12][0-9]|3[01])(?:[ T].*)?"),
    re.compile(r"(?:0?[1-9]|[12][0-9]|3[01])[-/. ]+(?:0?[1-9]|[12][0-9]|3[01])[-/. ]+(?:19|20)?[0-9]{2}(?: .*)?"),
)
_NORTH_AMERICAN = re.compile(r"(?:1[-. ])?\(?[2-9][0-9]{2}\)?[-. ]{1,2}[0-9]{3}[-. ][0-9]{4}")
_LABEL_CHARS = 24
_IBAN_CHARS = range(15, 35)
_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(7, 16)


def personal_spans(text: str, also: Iterable[Span] = ()) -> list[Span]:
    """What is there, in order, none overlapping another. Of what overlaps the surer kind is taken; ``also`` comes last."""
    taken = bytearray(len(text))
    found: list[Span] = []
    for span in chain(*(finder(text) for finder in _FINDERS), also):
        if taken.find(1, span.start, span.end) < 0:
            taken[span.start : span.end] = b"\x01" * (span.end - span.start)
            found.append(span)
    return sorted(found)


def _user_info(text: str) -> Iterator[Span]:
    if "://" in text:
        yield from (Span(match.start(), match.end(), "user-info") for match in _USER_INFO.finditer(text))


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (Span(match.start(), match.end(), "email") for match in EMAIL.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        # What follows may be taken for more of it: the longest beginning whose check digits are right is the account.
        for end in range(match.end(), match.start() + _IBAN_CHARS.start - 1, -1):
            account = text[match.start() : end].replace(" ", "")
            between_words = text[end - 1] != " " and not text[end : end + 1].isalnum()
            if len(account) in _IBAN_CHARS and between_words and is_iban(account):
                yield Span(match.start(), end, "iban")
                break


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = _digits(match[0])
        if len(digits) in _CARD_DIGITS and is_card(digits):
            yield Span(match.start(), match.end(), "card")


def _machines(text: str) -> Iterator[Span]:
    for match in _MAC.finditer(text):
        yield Span(match.start(), match.end(), "mac")
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if _is_somewhere(match[0]):
                yield Span(match.start(), match.end(), "ip")


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        labelled = _LABEL.search(text, max(0, match.start() - _LABEL_CHARS), match.start()) is not None
        if is_phone(match[0], labelled=labelled):
            yield Span(match.start(), match.end(), "phone")


_FINDERS: tuple[Callable[[str], Iterator[Span]], ...] = (_user_info, _emails, _ibans, _cards, _machines, _phones)


def is_iban(account: str) -> bool:
    """Whether the check digits are right (ISO 13616: the number that the letters stand for leaves 1 when divided by 97)."""
    if not account.isascii() or not account.isalnum():
        return False
    turned = account[4:] + account[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def is_card(digits: str) -> bool:
    """Whether the check digit is right (Luhn). One and the same digit all along is a placeholder's."""
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def is_phone(written: str, *, labelled: bool = False) -> bool:
    """Whether digits are somebody's number. ``labelled``: the text says so right before it.

    International ones begin with + or 00, national ones with 0; North America's are known by their groups. Others are not told
    from amounts and record numbers, unless they are labelled.
    """
    digits = _digits(written)
    if len(digits) not in _PHONE_DIGITS or any(date.fullmatch(written) for date in _DATES):
        return False
    if labelled:
        return True
    bare = written.lstrip("(")
    if bare.startswith(("+", "00")):
        return len(digits) >= 8
    if bare.startswith("0"):
        return 9 <= len(digits) <= 12 and not re.fullmatch(r"[0-9]+\.[0-9]+", written)
    return _NORTH_AMERICAN.fullmatch(written) is not None


def _is_somewhere(written: str) -> bool:
    """Whether it is an address of some machine; that of every machine itself tells nothing of anybody."""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _digits(written: str) -> str:
    return "".join(char for char in written if char in "0123456789")
