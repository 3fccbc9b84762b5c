"""What administrators send. Each body has the fields that may be set in that place, and refuses every other: nobody becomes
anything by adding a field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Struct
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from serve_app.domain.access import MAX_ROLES, MAX_TOOLS, ROLE, TENANT_ID, TOOL_ID, USER_ID
from serve_app.domain.identity import Limits, TurnChoices
from serve_app.errors import InvalidInput
from serve_app.wire.requests import ModelId

MAX_SUBJECT_CHARS = 256
MAX_LIMIT = 1_000_000_000
_DOMAIN = r"^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+$"
_EMAIL = r"^[!-?A-~]{1,64}@[!-?A-~]{1,255}$"


def _lowered(role: object) -> object:
    return role.strip().lower() if isinstance(role, str) else role


TenantId = Annotated[str, Field(pattern=f"^{TENANT_ID.pattern}$", examples=["contoso"])]
UserId = Annotated[str, Field(pattern=f"^{USER_ID.pattern}$", examples=["ana"])]
Name = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Email = Annotated[str, Field(max_length=320, pattern=f"^$|{_EMAIL}")]
Subject = Annotated[str, Field(min_length=1, max_length=MAX_SUBJECT_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")]
Role = Annotated[str, BeforeValidator(_lowered), Field(pattern=f"^{ROLE.pattern}$", examples=["sales"])]
Roles = Annotated[tuple[Role, ...], Field(max_length=MAX_ROLES)]
ToolId = Annotated[str, Field(pattern=f"^{TOOL_ID.pattern}$", examples=["crm", "crm.find_account"])]
ToolIds = Annotated[tuple[ToolId, ...], Field(max_length=MAX_TOOLS)]
Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT)]
Provider = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["openai"])]

S = TypeVar("S", bound=Struct)


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def changes(self) -> Mapping[str, Any]:
        """What was sent, as the record's fields. Raises InvalidInput where that is nothing."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        if not sent:
            raise InvalidInput(f"Give at least one of {', '.join(type(self).model_fields)}.")
        return {name: value.record() if isinstance(value, _Part) else _once(value) for name, value in sent.items()}

    @model_validator(mode="after")
    def _only_some_fields_are_cleared(self) -> _Body:
        for name in self.model_fields_set & self._kept():
            if getattr(self, name) is None:
                raise ValueError(f"{name} must not be null; leave it out, and it stays as it is")
        return self

    def _kept(self) -> frozenset[str]:
        """Fields whose null would say nothing."""
        return frozenset()


class _Part(BaseModel):
    """A part of a record that is replaced as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def record(self) -> Struct:
        raise NotImplementedError


class LimitsBody(_Part):
    """What is left out or null is what the server's settings say."""

    requests_per_minute: Limit | None = None
    concurrent_turns: Limit | None = None
    tokens_per_minute: Limit | None = None

    def record(self) -> Limits:
        return Limits(**self.model_dump())


class ChoicesBody(_Part):
    """What is left out or null is what the prompt, or else the server's settings, say."""

    model_id: ModelId | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def record(self) -> TurnChoices:
        return TurnChoices(**self.model_dump())


class TenantPatch(_Body):
    """What is left out stays. `default_tools: null` lets users have all that their roles open. `disabled`, `denied_tools` and
    `roles_from_token` are a platform administrator's.
    """

    name: Name | None = None
    disabled: bool | None = None
    default_tools: ToolIds | None = None
    denied_tools: ToolIds | None = None
    choices: ChoicesBody | None = None
    roles_from_token: bool | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [{"default_tools": ["crm", "hr.leave_balance"]}, {"choices": {"model_id": "large"}}]
        },
    )

    def _kept(self) -> frozenset[str]:
        return frozenset(type(self).model_fields) - {"default_tools"}


class NewTenant(_Body):
    """`tenant_id` is what tokens name the tenant by: for Entra ID its directory's id."""

    tenant_id: TenantId
    name: Name = ""


class LimitsPatch(_Body):
    """Each is replaced as a whole. `tenant_limits` is a platform administrator's."""

    user_limits: LimitsBody | None = None
    tenant_limits: LimitsBody | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"user_limits": {"requests_per_minute": 60, "concurrent_turns": 4}}]},
    )

    def _kept(self) -> frozenset[str]:
        return frozenset(type(self).model_fields)


class UserPatch(_Body):
    """What is left out stays. `limits` take the place of the tenant's `user_limits`, each where it is set."""

    name: Name | None = None
    email: Email | None = None
    roles: Roles | None = None
    disabled: bool | None = None
    allowed_tools: ToolIds | None = None
    denied_tools: ToolIds | None = None
    limits: LimitsBody | None = None

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"roles": ["sales", "admin"]}, {"disabled": True}]}
    )

    def _kept(self) -> frozenset[str]:
        return frozenset(type(self).model_fields)


class NewUser(_Body):
    """`subject` is the identity provider's id of the user, who can then come in at once."""

    user_id: UserId | None = None
    name: Name = ""
    email: Email = ""
    roles: Roles = ()
    subject: Subject | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "ana", "name": "Ana", "roles": ["sales"], "subject": "00u1a2b3"}]},
    )


class SubjectBody(_Body):
    subject: Annotated[Subject, Field(examples=["00u1a2b3"])]


class AccountReset(_Body):
    """`login`: the name to log in with; without one, the user's id."""

    login: Annotated[str | None, Field(min_length=1, max_length=320, examples=["ana@contoso.com"])] = None


class NewProvisioning(_Body):
    """Who becomes a user by asking for the first time. `subject` and `email` mean one person, `domain` everybody whose address is
    of it.
    """

    match: Literal["subject", "email", "domain"]
    value: Subject
    roles: Roles = ()
    expires_in_s: Annotated[int, Field(ge=60, le=31_622_400)] | None = None

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"match": "domain", "value": "contoso.com", "roles": ["sales"]}]},
    )

    @model_validator(mode="after")
    def _value_fits(self) -> NewProvisioning:
        pattern = {"email": _EMAIL, "domain": _DOMAIN}.get(self.match)
        if pattern is not None and not re.fullmatch(pattern, self.value):
            raise ValueError(
                f"value must be {'an e-mail address' if self.match == 'email' else 'a domain such as contoso.com'}"
            )
        return self


class ProviderKeyBody(_Body):
    """The key is encrypted before it is stored, and never shown again."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Annotated[SecretStr, Field(min_length=8, max_length=4_096, examples=["sk-…"])]


def _once(value: Any) -> Any:
    """Lists without repetition."""
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value
