"""Credentials and endpoints of outside services, which come from the environment only."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator

from serve_app.errors import ConfigError

MIN_ADMIN_TOKEN_CHARS = 32


class Secrets(BaseModel):
    """Credentials and endpoints of outside services, by the names their own tools use."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    azure_openai_endpoint: str | None = None
    azure_openai_api_key: SecretStr | None = None
    azure_openai_api_version: str | None = None
    azure_openai_chat_model: str | None = None
    anthropic_api_key: SecretStr | None = None
    gemini_api_key: SecretStr | None = None
    google_api_key: SecretStr | None = None
    azure_cosmos_key: SecretStr | None = None
    azure_storage_key: SecretStr | None = None
    redis_url: SecretStr | None = None
    parley_channel_secret: SecretStr | None = None
    """Shared by all replicas of a graph; made at random for each start where it is not set."""
    parley_signing_key: SecretStr | None = None
    """RSA private keys (PEM, one after the other, newest first) for the tokens of local accounts: the first signs, all verify."""
    parley_admin_token: SecretStr | None = None
    """Whoever has it administers the platform: for the first steps, and for automation."""
    parley_keys: SecretStr | None = None
    """Keys that stored secrets are encrypted with, the newest first and split by commas; see ``serve_app.keys``."""
    parley_load_token: SecretStr | None = None
    """What the users of a load test show, where the server asks for credentials; the server itself has no use for it."""

    @field_validator("parley_admin_token")
    @classmethod
    def _cannot_be_guessed(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value().strip()) < MIN_ADMIN_TOKEN_CHARS:
            raise ValueError(f"PARLEY_ADMIN_TOKEN: must have at least {MIN_ADMIN_TOKEN_CHARS} characters")
        return token

    @classmethod
    def from_environment(cls) -> Secrets:
        """Raises ConfigError for a secret that cannot be one, without repeating it."""
        try:
            return cls.model_validate(
                {name: value for name in cls.model_fields if (value := os.environ.get(name.upper()))}
            )
        except ValidationError as error:
            raise ConfigError(f"Setting {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None


def secret_values(secrets: Secrets) -> list[str]:
    """The values that must be told nobody."""
    given = (getattr(secrets, name) for name in Secrets.model_fields)
    return [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
