"""Keys follow from the secret and nothing else."""

from __future__ import annotations

import pytest

from serve_app.channel.curve import ChannelKeys, new_secret
from serve_app.errors import ConfigError


def test_same_secret_gives_the_same_keys_and_another_gives_others() -> None:
    secret = new_secret()

    assert ChannelKeys.derive(secret) == ChannelKeys.derive(secret)
    assert ChannelKeys.derive(secret) != ChannelKeys.derive(new_secret())


def test_keys_do_not_appear_when_shown() -> None:
    keys = ChannelKeys.derive(new_secret())

    assert keys.listen_secret.decode() not in repr(keys)
    assert keys.listen_public.decode() not in repr(keys)


def test_secret_too_short_to_be_one_is_refused_with_its_setting() -> None:
    with pytest.raises(ConfigError, match="PARLEY_CHANNEL_SECRET"):
        ChannelKeys.derive("short")
