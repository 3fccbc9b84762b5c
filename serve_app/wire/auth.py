"""Logging in, as HTTP says it: what people with local accounts send, and what they get."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from serve_app.accounts.passwords import MAX_PASSWORD_CHARS
from serve_app.accounts.port import Tokens
from serve_app.accounts.records import MAX_LOGIN_CHARS
from serve_app.accounts.service import MAX_RESET_CHARS
from serve_app.accounts.sessions import MAX_REFRESH_CHARS

Login = Annotated[str, Field(min_length=1, max_length=MAX_LOGIN_CHARS, description="The account's name, in any case")]
Password = Annotated[SecretStr, Field(min_length=1, max_length=MAX_PASSWORD_CHARS)]
AsCookie = Annotated[
    bool,
    Field(description="Whether the refresh token comes as a cookie that no script can read, as browsers want it"),
]


class _Body(BaseModel):
    """Unknown fields are refused, and no error or log repeats a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LoginBody(_Body):
    login: Login
    password: Password
    cookie: AsCookie = True

    model_config = ConfigDict(json_schema_extra={"examples": [{"login": "ana@example.com", "password": "…"}]})


class PasswordBody(_Body):
    """The present password shows who it is, so that one that has expired can be changed, too."""

    login: Login
    password: Password
    new_password: Password
    cookie: AsCookie = True

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"login": "ana@example.com", "password": "…", "new_password": "…"}]}
    )


class ResetBody(_Body):
    """``token`` is the one-time token that an administrator has made."""

    token: Annotated[SecretStr, Field(min_length=1, max_length=MAX_RESET_CHARS)]
    new_password: Password

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": "…", "new_password": "…"}]})


class RefreshBody(_Body):
    """Without a token here, the cookie's is meant."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=MAX_REFRESH_CHARS)] | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "…"}]})


class TokensView(BaseModel):
    """``refresh_token`` is there only where no cookie was wanted."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the kind, not a token
    expires_in_s: int
    refresh_token: str | None = None

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"access_token": "eyJ…", "token_type": "Bearer", "expires_in_s": 900, "refresh_token": None},
            ]
        },
    )

    @classmethod
    def of(cls, tokens: Tokens, *, cookie: bool) -> TokensView:
        return cls(
            access_token=tokens.access_token,
            expires_in_s=tokens.expires_in_s,
            refresh_token=None if cookie else tokens.refresh_token,
        )


class SignInView(BaseModel):
    """``mode``: with headers, as in development; with names and passwords kept here; or with tokens of somebody else's."""

    mode: Literal["development", "accounts", "jwt", "entra"]

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"mode": "accounts"}]})


class TicketView(BaseModel):
    """``ticket`` opens one WebSocket: ``/ws/chat?ticket=…``, within ``expires_in_s``."""

    ticket: str
    expires_in_s: int

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"ticket": "1795302000.3f…", "expires_in_s": 30}]}
    )
