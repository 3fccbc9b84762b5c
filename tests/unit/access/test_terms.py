"""What a user may have, from what is said of the tenant and of the user."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.access.terms import effective_roles, effective_tools, terms_of
from serve_app.domain.access import TenantRecord, UserRecord
from serve_app.domain.identity import Limits, Principal, TurnChoices


def tenant(**fields: Any) -> TenantRecord:
    return TenantRecord(tenant_id="acme", **fields)


def user(**fields: Any) -> UserRecord:
    return UserRecord(tenant_id="acme", user_id="ana", **fields)


@pytest.mark.parametrize(
    ("defaults", "allowed", "denied", "effective"),
    [
        (("crm", "hr"), (), (), ("crm", "hr")),
        (("crm", "hr"), ("web", "crm"), (), ("crm", "hr", "web")),
        (("crm", "crm"), ("web", "web"), (), ("crm", "web")),
        (("crm", "hr"), ("web",), ("hr",), ("crm", "web")),
        (("crm.find", "crm.change", "hr"), (), ("crm",), ("hr",)),
        (("crm",), (), ("crm.change",), ("crm",)),
        (("crm",), ("crm",), ("crm",), ()),
        (("crmx",), (), ("crm",), ("crmx",)),
        ((), (), (), ()),
        ((), ("web",), (), ("web",)),
        (None, ("web",), (), None),
        (None, (), ("web",), None),
    ],
)
def test_a_users_tools_go_on_top_of_the_tenants_and_what_is_denied_is_gone(
    defaults: Any, allowed: Any, denied: Any, effective: Any
) -> None:
    assert effective_tools(defaults, allowed, denied) == effective


@pytest.mark.parametrize(
    ("of_tenant", "of_user", "may", "may_not"),
    [
        ({}, {}, ["crm", "crm.find", "anything"], []),
        ({"default_tools": ("crm",)}, {}, ["crm", "crm.find", "crm.find.deep"], ["crmx", "crmx.find", "hr", "c", ""]),
        ({"default_tools": ("crm.find",)}, {}, ["crm.find"], ["crm", "crm.finder", "crm.change"]),
        ({"default_tools": ()}, {"allowed_tools": ("hr",)}, ["hr.leave"], ["crm.find"]),
        (
            {"default_tools": ("crm",)},
            {"denied_tools": ("crm.change",)},
            ["crm.find"],
            ["crm.change", "crm.change.all"],
        ),
        ({"denied_tools": ("hr",)}, {"allowed_tools": ("hr",)}, ["crm.find"], ["hr", "hr.leave"]),
        ({"default_tools": ("hr",), "denied_tools": ("hr",)}, {"allowed_tools": ("hr.leave",)}, [], ["hr", "hr.leave"]),
    ],
)
def test_an_id_stands_for_itself_and_for_all_below_it(
    of_tenant: Any, of_user: Any, may: list[str], may_not: list[str]
) -> None:
    principal = Principal(tenant_id="acme", user_id="ana", terms=terms_of(tenant(**of_tenant), user(**of_user)))
    assert [tool for tool in may if not principal.may_use(tool)] == []
    assert [tool for tool in may_not if principal.may_use(tool)] == []


def test_a_users_limits_take_the_place_of_the_tenants_each_where_it_is_set() -> None:
    terms = terms_of(
        tenant(
            user_limits=Limits(requests_per_minute=60, concurrent_turns=2),
            tenant_limits=Limits(tokens_per_minute=100_000),
            choices=TurnChoices(model_id="large"),
        ),
        user(limits=Limits(concurrent_turns=0, tokens_per_minute=9)),
    )
    assert terms.user_limits == Limits(requests_per_minute=60, concurrent_turns=0, tokens_per_minute=9)
    assert terms.tenant_limits == Limits(tokens_per_minute=100_000)
    assert terms.choices.model_id == "large"


def test_roles_are_the_records_and_the_tokens_once_each() -> None:
    assert effective_roles(tenant(), user(roles=("sales",)), ("HR ", "sales", "Admin")) == ("sales", "hr", "admin")
    assert effective_roles(tenant(roles_from_token=False), user(roles=("sales",)), ("hr", "admin")) == ("sales",)


@pytest.mark.parametrize("role", ["platform-admin", "Platform-Admin", " PLATFORM-ADMIN\t", "a b", "", "x" * 65, "röle"])
def test_a_token_grants_no_platform_administration_and_nothing_that_is_no_role(role: str) -> None:
    assert effective_roles(tenant(), user(roles=("sales",)), (role,)) == ("sales",)


def test_a_platform_administrator_is_who_the_record_says_is_one() -> None:
    assert effective_roles(tenant(), user(roles=("platform-admin",)), ()) == ("platform-admin",)
