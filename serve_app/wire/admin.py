"""What administrators see: records without secrets, each with the etag that a change of it may be made under."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from serve_app.access.port import Saved
from serve_app.domain.access import (
    AuditEntry,
    ProviderKeyRecord,
    ProvisioningMatch,
    ProvisioningRecord,
    TenantRecord,
    UserRecord,
)
from serve_app.domain.conversation import Page
from serve_app.domain.identity import TurnChoices
from serve_app.domain.usage import UsageRow
from serve_app.wire.service import QuotaView, quota_view
from serve_app.wire.usage import UsageView, usage_fields

NextCursor = Annotated[str | None, Field(examples=[None])]
TenantName = Annotated[str, Field(examples=["contoso"])]
UserName = Annotated[str, Field(examples=["ana"])]
RoleNames = Annotated[list[str], Field(examples=[["sales"]])]
ToolNames = Annotated[list[str], Field(examples=[["crm", "hr.leave_balance"]])]
Etag = Annotated[str, Field(examples=["1c"])]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ChoicesView(_View):
    """Null is what the prompt, or else the server's settings, say."""

    model_id: str | None
    temperature: float | None
    max_output_tokens: int | None

    @classmethod
    def of(cls, choices: TurnChoices) -> ChoicesView:
        return cls(**msgspec.structs.asdict(choices))


class TenantView(_View):
    tenant_id: TenantName
    name: str
    disabled: bool
    default_tools: Annotated[list[str] | None, Field(examples=[["crm", "hr.leave_balance"]])]
    denied_tools: Annotated[list[str], Field(examples=[["crm.delete_account"]])]
    choices: ChoicesView
    user_limits: QuotaView
    tenant_limits: QuotaView
    roles_from_token: bool
    etag: Etag

    @classmethod
    def of(cls, saved: Saved[TenantRecord]) -> TenantView:
        tenant = saved.value
        return cls(
            tenant_id=tenant.tenant_id,
            name=tenant.name,
            disabled=tenant.disabled,
            default_tools=None if tenant.default_tools is None else list(tenant.default_tools),
            denied_tools=list(tenant.denied_tools),
            choices=ChoicesView.of(tenant.choices),
            user_limits=quota_view(tenant.user_limits),
            tenant_limits=quota_view(tenant.tenant_limits),
            roles_from_token=tenant.roles_from_token,
            etag=saved.etag,
        )


class TenantPage(_View):
    items: list[TenantView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[Saved[TenantRecord]]) -> TenantPage:
        return cls(items=[TenantView.of(each) for each in page.items], next_cursor=page.next_cursor)


class TenantLimitsView(_View):
    """What each user of the tenant may use, and what all of them together may."""

    tenant_id: TenantName
    user_limits: QuotaView
    tenant_limits: QuotaView
    etag: Etag

    @classmethod
    def of(cls, saved: Saved[TenantRecord]) -> TenantLimitsView:
        return cls(
            tenant_id=saved.value.tenant_id,
            user_limits=quota_view(saved.value.user_limits),
            tenant_limits=quota_view(saved.value.tenant_limits),
            etag=saved.etag,
        )


class UserView(_View):
    """`subjects` are the identity provider's ids of the user."""

    tenant_id: TenantName
    user_id: UserName
    name: str
    email: str
    roles: RoleNames
    disabled: bool
    allowed_tools: ToolNames
    denied_tools: Annotated[list[str], Field(examples=[["crm.delete_account"]])]
    limits: QuotaView
    subjects: list[str]
    etag: Etag

    @classmethod
    def of(cls, saved: Saved[UserRecord]) -> UserView:
        user = saved.value
        return cls(
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            name=user.name,
            email=user.email,
            roles=list(user.roles),
            disabled=user.disabled,
            allowed_tools=list(user.allowed_tools),
            denied_tools=list(user.denied_tools),
            limits=quota_view(user.limits),
            subjects=[unquote(each.partition("/")[2]) for each in user.identities],
            etag=saved.etag,
        )


class UserPage(_View):
    items: list[UserView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[Saved[UserRecord]]) -> UserPage:
        return cls(items=[UserView.of(each) for each in page.items], next_cursor=page.next_cursor)


class ResetView(_View):
    """Whoever has the token chooses the password, once and within `expires_in_s`. It is shown here only."""

    login: Annotated[str, Field(examples=["ana@contoso.com"])]
    token: str
    expires_in_s: Annotated[int, Field(examples=[86_400])]


class ProvisioningView(_View):
    """`used`: somebody has become a user by it, and nobody else will. `expires_at` is in Unix seconds."""

    id: str
    tenant_id: TenantName
    match: ProvisioningMatch
    value: str
    roles: RoleNames
    expires_at: float | None
    used: bool

    @classmethod
    def of(cls, saved: Saved[ProvisioningRecord]) -> ProvisioningView:
        record = saved.value
        return cls(
            id=record.record_id,
            tenant_id=record.tenant_id,
            match=record.match,
            value=record.value,
            roles=list(record.roles),
            expires_at=record.expires_at,
            used=bool(record.used_by),
        )


class ProvisioningPage(_View):
    items: list[ProvisioningView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[Saved[ProvisioningRecord]]) -> ProvisioningPage:
        return cls(items=[ProvisioningView.of(each) for each in page.items], next_cursor=page.next_cursor)


class ProviderKeyView(_View):
    """All that is ever shown of a key; `last_four` is empty for a very short one. `origin` is whom it is sent to."""

    tenant_id: TenantName
    provider: Annotated[str, Field(examples=["openai"])]
    origin: Annotated[str, Field(examples=["https://api.openai.com"])]
    last_four: Annotated[str, Field(examples=["x7Qf"])]
    changed_at: datetime
    etag: Etag

    @classmethod
    def of(cls, saved: Saved[ProviderKeyRecord]) -> ProviderKeyView:
        return cls(
            tenant_id=saved.value.tenant_id,
            provider=saved.value.provider,
            origin=saved.value.origin,
            last_four=saved.value.last_four,
            changed_at=saved.value.changed_at,
            etag=saved.etag,
        )


class ProviderKeyPage(_View):
    items: list[ProviderKeyView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[Saved[ProviderKeyRecord]]) -> ProviderKeyPage:
        return cls(items=[ProviderKeyView.of(each) for each in page.items], next_cursor=page.next_cursor)


class RotatedView(_View):
    """`lost`: keys that none of the server's opens, to be set again by their tenants; the server's log names them.
    `next_cursor`: where the next request goes on; null when all keys have been looked at.
    """

    sealed: int
    kept: int
    lost: int
    next_cursor: NextCursor


class UsageRowView(UsageView):
    """What was consumed of one model, for what `purpose` says: a `turn`, of a turn those `steps` that another model answered than
    the one that ended it, or a `title`. `at` is when it ended.
    """

    user_id: UserName
    conversation_id: str
    turn_id: str
    purpose: Literal["turn", "steps", "title"]
    model_id: str | None
    at: datetime

    @classmethod
    def of_row(cls, row: UsageRow) -> UsageRowView:
        return cls(
            user_id=row.user_id,
            conversation_id=row.conversation_id,
            turn_id=row.turn_id,
            purpose=row.purpose,
            model_id=row.model_id,
            at=row.at,
            **usage_fields(row.usage),
        )


class UsagePage(_View):
    """The rows of a day (UTC), in no promised order. While the day goes on some may be missing."""

    tenant_id: TenantName
    day: date
    items: list[UsageRowView]
    next_cursor: NextCursor


class AuditEntryView(_View):
    """`begun`: nobody has told how it came out. `before` and `after` are the fields that were to change, without secrets."""

    id: str
    tenant_id: TenantName
    at: datetime
    actor: Annotated[str, Field(examples=["contoso/ana"])]
    action: Annotated[str, Field(examples=["user.change"])]
    target: Annotated[str, Field(examples=["user:ben"])]
    outcome: Literal["begun", "done", "failed"]
    code: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryView:
        return cls(
            id=entry.entry_id,
            tenant_id=entry.tenant_id,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            target=entry.target,
            outcome=entry.outcome,
            code=entry.code or None,
            before=None if entry.before is None else dict(entry.before),
            after=None if entry.after is None else dict(entry.after),
            request_id=entry.request_id or None,
        )


class AuditPage(_View):
    items: list[AuditEntryView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[AuditEntry]) -> AuditPage:
        return cls(items=[AuditEntryView.of(each) for each in page.items], next_cursor=page.next_cursor)
