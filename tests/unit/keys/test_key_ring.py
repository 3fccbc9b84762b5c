"""Secrets that are stored sealed: opened where they belong, by the keys that are configured, and by nobody else."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, Internal
from serve_app.keys.connect import open_keys
from serve_app.keys.ring import PROVIDER_KEYS, KeyRing

OLD, NEW = "old-" + "o" * 40, "new-" + "n" * 40
SECRET = "sk-a-provider's-key"


def test_what_is_sealed_is_opened_where_it_belongs() -> None:
    sealer = KeyRing.parse(NEW).sealer(PROVIDER_KEYS)
    sealed = sealer.seal(SECRET, "acme/openai")
    assert SECRET not in sealed
    assert SECRET.encode() not in base64.urlsafe_b64decode(sealed)
    assert sealer.open(sealed, "acme/openai") == SECRET
    assert sealer.seal(SECRET, "acme/openai") != sealed


@pytest.mark.parametrize("place", ["globex/openai", "acme/other", "acme", ""])
def test_a_sealed_secret_cannot_be_moved(place: str) -> None:
    sealer = KeyRing.parse(NEW).sealer(PROVIDER_KEYS)
    with pytest.raises(Internal) as caught:
        sealer.open(sealer.seal(SECRET, "acme/openai"), place)
    assert SECRET not in str(caught.value)


def test_one_purposes_key_opens_nothing_of_another() -> None:
    ring = KeyRing.parse(NEW)
    with pytest.raises(Internal):
        ring.sealer("other").open(ring.sealer(PROVIDER_KEYS).seal(SECRET, "p"), "p")


def test_the_configured_key_itself_seals_nothing() -> None:
    key = base64.urlsafe_b64encode(b"k" * 32).decode()
    sealed = KeyRing.parse(key).sealer(PROVIDER_KEYS).seal(SECRET, "p")
    with pytest.raises(InvalidToken):
        Fernet(key).decrypt(sealed)


def test_an_old_keys_secrets_are_opened_until_they_are_sealed_again() -> None:
    sealed = KeyRing.parse(OLD).sealer(PROVIDER_KEYS).seal(SECRET, "p")
    both = KeyRing.parse(f"{NEW}, {OLD}").sealer(PROVIDER_KEYS)
    assert both.open(sealed, "p") == SECRET
    assert not both.is_newest(sealed)
    again = both.again(sealed)
    assert both.is_newest(again)
    only_new = KeyRing.parse(NEW).sealer(PROVIDER_KEYS)
    assert only_new.open(again, "p") == SECRET
    with pytest.raises(Internal):
        only_new.open(sealed, "p")
    with pytest.raises(Internal):
        only_new.again(sealed)


def test_a_changed_secret_is_not_opened() -> None:
    sealer = KeyRing.parse(NEW).sealer(PROVIDER_KEYS)
    sealed = sealer.seal(SECRET, "p")
    for position in range(0, len(sealed), 7):
        other = "A" if sealed[position] != "A" else "B"
        with pytest.raises(Internal):
            sealer.open(sealed[:position] + other + sealed[position + 1 :], "p")
    for broken in ("", "=", "ä", sealed[:-1]):
        with pytest.raises(Internal):
            sealer.open(broken, "p")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        f"{NEW},",
        f",{NEW}",
        f"{NEW},short",
        f"{NEW},{NEW}",
        " " * 40,
        ",".join("k" * (32 + n) for n in range(17)),
    ],
)
def test_keys_that_are_too_weak_or_mistaken_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyRing.parse(text)
    assert "PARLEY_KEYS" in caught.value.message
    assert NEW not in caught.value.message
    assert "short" not in caught.value.message


def test_a_ring_shows_none_of_its_keys() -> None:
    ring = KeyRing.parse(NEW)
    assert NEW not in repr(ring)
    assert NEW not in f"{ring} {vars(ring).keys()}"


def test_without_keys_there_is_no_ring() -> None:
    assert open_keys(Secrets()) is None
    assert open_keys(Secrets(parley_keys=SecretStr(NEW))) is not None
