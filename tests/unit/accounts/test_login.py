"""Names and passwords: who gets in, who is told what, and how many guesses anybody has."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from serve_app.accounts import passwords
from serve_app.accounts.records import ACCOUNT_NAMES_KIND, ACCOUNTS_KIND, SESSIONS_KIND
from serve_app.domain.access import SYSTEM_TENANT, IdentityRecord, UserRecord
from serve_app.domain.identity import Identity, Principal
from serve_app.errors import Conflict, InvalidInput, NotFound, NotPermitted, Overloaded, Unauthenticated
from serve_app.identity.connect import connect
from serve_app.settings import AuthSettings
from tests.unit.accounts.bench import LOGIN, OTHER_PASSWORD, PASSWORD, TENANT, USER, Bench
from tests.unit.accounts.keys import signing_pem


class Everybody:
    async def resolve(self, identity: Identity) -> Principal:
        return Principal(tenant_id=identity.tenant, user_id=identity.subject)


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.add_account()
    return made


async def test_a_password_gives_a_token_that_the_verifier_of_every_mode_believes(bench: Bench) -> None:
    bench.clock.now = time.time()
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    authenticator = connect(bench.settings, Everybody(), await bench.accounts.jwks())
    grant = await authenticator.with_token(tokens.access_token)
    assert (grant.principal.tenant_id, grant.principal.user_id) == (TENANT, USER)
    assert grant.expires_at is not None
    assert grant.expires_at - bench.clock.now == pytest.approx(tokens.expires_in_s + 30, abs=1)
    strangers = connect(bench.settings, Everybody(), await bench.another_replica(signing_pem("two")).jwks())
    with pytest.raises(Unauthenticated):
        await strangers.with_token(tokens.access_token)


async def test_the_account_is_linked_to_its_user_where_access_looks(bench: Bench) -> None:
    identity = (await bench.directory.get_identity(f"{TENANT}/{USER}")).value
    assert (identity.tenant_id, identity.user_id) == (TENANT, USER)
    assert (await bench.directory.get_user(TENANT, USER)).value.identities == (f"{TENANT}/{USER}",)


@pytest.mark.parametrize("login", [LOGIN.upper(), f" {LOGIN} "])
async def test_a_name_is_the_same_however_it_is_written(bench: Bench, login: str) -> None:
    assert (await bench.accounts.login(login, PASSWORD)).access_token


async def test_a_password_is_the_same_however_a_keyboard_composes_it(bench: Bench) -> None:
    await bench.add_account("u-zoe", "zoe", "pla\u00e7a de les gl\u00f2ries")
    await bench.accounts.login("zoe", "plac\u0327a de les glo\u0300ries")


async def refusal(bench: Bench, login: str, password: str) -> str:
    with pytest.raises(Unauthenticated) as refused:
        await bench.accounts.login(login, password)
    return refused.value.message


async def test_a_stranger_cannot_tell_a_wrong_name_from_a_wrong_password_from_a_locked_account(bench: Bench) -> None:
    said = {
        await refusal(bench, LOGIN, "wrong password"),
        await refusal(bench, "nobody@contoso.example", PASSWORD),
        await refusal(bench, "no name\0", PASSWORD),
        await refusal(bench, "", PASSWORD),
        await refusal(bench, "x" * 1_000, PASSWORD),
    }
    for _ in range(10):
        said.add(await refusal(bench, LOGIN, "wrong password"))
    said.add(await refusal(bench, LOGIN, PASSWORD))
    assert len(said) == 1


async def test_a_name_that_nobody_has_costs_a_hash_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    plain = bench.passwords._matches

    def matches(password_hash: str, password: str) -> bool:
        made.append(password_hash)
        return plain(password_hash, password)

    monkeypatch.setattr(bench.passwords, "_matches", matches)
    await refusal(bench, "nobody@contoso.example", PASSWORD)
    await refusal(bench, "no name\0", PASSWORD)
    await refusal(bench, LOGIN, "wrong password")
    assert len(made) == 3


async def test_a_name_that_nobody_has_costs_the_store_as_much_as_an_account_locked_or_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a trip to another process or machine: who measures could tell them apart."""
    trips: list[str] = []
    for name in ("get_record", "save_record"):
        monkeypatch.setattr(bench.store, name, counted(getattr(bench.store, name), name, trips))
    costs = []
    for login in ("nobody@contoso.example", *[LOGIN] * 7):
        trips.clear()
        await refusal(bench, login, "wrong password")
        costs.append(list(trips))
    assert costs == [["get_record", "save_record"]] * 8


def counted(call: Any, name: str, trips: list[str]) -> Any:
    async def through(*args: Any, **options: Any) -> Any:
        trips.append(name)
        return await call(*args, **options)

    return through


async def test_many_guesses_at_once_do_not_say_that_there_is_such_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(AuthSettings(mode="accounts", lockout_attempts=50))
    await bench.add_account()
    get = bench.store.get_record

    async def at_the_same_time(*args: Any) -> Any:
        found = await get(*args)
        await asyncio.sleep(0)
        return found

    monkeypatch.setattr(bench.store, "get_record", at_the_same_time)
    monkeypatch.setattr(passwords, "MAX_WAITING", 1_000)
    guesses = [bench.accounts.login(LOGIN, "wrong password") for _ in range(40)]
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unauthenticated}


async def test_what_is_no_text_is_no_password(bench: Bench) -> None:
    """JSON can write half a character."""
    await refusal(bench, LOGIN, "\ud800" + PASSWORD)
    await refusal(bench, "nobody@contoso.example", "\ud800" + PASSWORD)
    with pytest.raises(InvalidInput):
        await bench.accounts.change_password(LOGIN, PASSWORD, "\ud800" + OTHER_PASSWORD)


async def test_an_account_without_a_password_lets_nobody_in(bench: Bench) -> None:
    await bench.add_user("u-bob")
    await bench.accounts.issue_reset(TENANT, "u-bob", "bob")
    for password in ("", "nobody's password", PASSWORD):
        await refusal(bench, "bob", password)


async def test_after_five_guesses_the_account_is_locked_for_its_time_and_then_open_again(bench: Bench) -> None:
    for _ in range(5):
        await refusal(bench, LOGIN, "wrong password")
    await refusal(bench, LOGIN, PASSWORD)
    bench.clock.now += 899
    await refusal(bench, LOGIN, PASSWORD)
    bench.clock.now += 1
    await bench.accounts.login(LOGIN, PASSWORD)


async def test_trying_on_does_not_keep_an_account_locked(bench: Bench) -> None:
    """Else anybody could keep somebody out for ever with one guess now and then."""
    for _ in range(5):
        await refusal(bench, LOGIN, "wrong password")
    bench.clock.now += 800
    await refusal(bench, LOGIN, "wrong password")
    bench.clock.now += 100
    await bench.accounts.login(LOGIN, PASSWORD)


async def test_a_right_password_forgets_the_wrong_ones_before_it(bench: Bench) -> None:
    for _ in range(4):
        for _ in range(4):
            await refusal(bench, LOGIN, "wrong password")
        await bench.accounts.login(LOGIN, PASSWORD)


async def test_of_a_hundred_guesses_at_once_five_are_judged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    plain = bench.passwords._matches

    def matches(password_hash: str, password: str) -> bool:
        if password_hash == real:
            judged.append(password)
        return plain(password_hash, password)

    found = await bench.store.get_record(SYSTEM_TENANT, ACCOUNTS_KIND, LOGIN)
    real = found.body.decode().split('"password_hash":"')[1].split('"')[0]
    monkeypatch.setattr(bench.passwords, "_matches", matches)
    replicas = [bench.accounts, bench.another_replica()]
    for _ in range(10):
        guesses = [replicas[n % 2].login(LOGIN, f"guess {n}") for n in range(10)]
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(outcome, Unauthenticated | Overloaded) for outcome in outcomes)
    assert 1 <= len(judged) <= 5


async def test_more_logins_than_can_be_hashed_are_refused_and_not_kept_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.accounts.passwords.MAX_WAITING", 2)
    outcomes = await asyncio.gather(
        *(bench.accounts.login(f"nobody-{n}", PASSWORD) for n in range(10)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert len(refused) == 8
    assert all(outcome.retry_after_s for outcome in refused)
    await bench.accounts.login(LOGIN, PASSWORD)


async def test_clients_that_hang_up_do_not_make_room_for_more_hashes_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0
    lock, go_on = threading.Lock(), threading.Event()

    def slow(password_hash: str, password: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(10)
        with lock:
            running -= 1
        return False

    await bench.passwords.verify("", PASSWORD)  # nobody's hash is there
    monkeypatch.setattr(bench.passwords, "_matches", slow)
    for n in range(12):
        guess = asyncio.create_task(bench.passwords.verify("", f"guess {n}"))
        await asyncio.sleep(0)
        guess.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guess
    go_on.set()
    assert not await bench.passwords.verify("", PASSWORD)
    assert most <= 2


# -- choosing passwords ----------------------------------------------------------------------------------------------


NOT_GOOD = ["short", "elevenchars", "x" * 257, "a" * 16, "abababababab", "   ", LOGIN, LOGIN.upper(), "1-ana.meier-1"]


@pytest.mark.parametrize("password", NOT_GOOD)
async def test_a_password_that_is_not_good_enough_is_refused_and_the_old_one_stays(bench: Bench, password: str) -> None:
    await bench.add_account("u-meier", "ana.meier@contoso.example")
    login = LOGIN if password.lower() == LOGIN else "ana.meier@contoso.example"
    with pytest.raises(InvalidInput):
        await bench.accounts.change_password(login, PASSWORD, password)
    await bench.accounts.login(login, PASSWORD)


async def test_another_password_ends_every_session_but_the_one_it_begins(bench: Bench) -> None:
    before = await bench.accounts.login(LOGIN, PASSWORD)
    after = await bench.accounts.change_password(LOGIN, PASSWORD, OTHER_PASSWORD)
    with pytest.raises(Unauthenticated):
        await bench.accounts.refresh(before.refresh_token)
    await bench.accounts.refresh(after.refresh_token)
    await refusal(bench, LOGIN, PASSWORD)
    await bench.accounts.login(LOGIN, OTHER_PASSWORD)


async def test_changing_a_password_is_guessing_as_well(bench: Bench) -> None:
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await bench.accounts.change_password(LOGIN, "wrong password", OTHER_PASSWORD)
    await refusal(bench, LOGIN, PASSWORD)


async def test_a_password_that_has_expired_only_serves_to_choose_another() -> None:
    bench = Bench(AuthSettings(mode="accounts", password_max_age_days=90))
    await bench.add_account()
    bench.clock.now += 90 * 86_400
    await bench.accounts.login(LOGIN, PASSWORD)
    bench.clock.now += 1
    with pytest.raises(NotPermitted) as refused:
        await bench.accounts.login(LOGIN, PASSWORD)
    assert refused.value.details == [{"reason": "expired"}]
    await bench.accounts.change_password(LOGIN, PASSWORD, OTHER_PASSWORD)
    await bench.accounts.login(LOGIN, OTHER_PASSWORD)


async def test_a_hash_of_older_parameters_is_made_anew_with_the_next_login(bench: Bench) -> None:
    from argon2 import PasswordHasher

    async def kept() -> str:
        return (await bench.store.get_record(SYSTEM_TENANT, ACCOUNTS_KIND, LOGIN)).body.decode()

    bench.passwords._hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    assert "m=8,t=1" in await kept()
    await bench.accounts.login(LOGIN, PASSWORD)
    assert "m=16,t=2" in await kept()
    await bench.accounts.login(LOGIN, PASSWORD)


# -- one-time tokens -------------------------------------------------------------------------------------------------


async def test_a_one_time_token_works_once_unlocks_and_ends_sessions(bench: Bench) -> None:
    session = await bench.accounts.login(LOGIN, PASSWORD)
    for _ in range(5):
        await refusal(bench, LOGIN, "wrong password")
    issued = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    await bench.accounts.reset(issued.token, OTHER_PASSWORD)
    await bench.accounts.login(LOGIN, OTHER_PASSWORD)
    with pytest.raises(Unauthenticated):
        await bench.accounts.refresh(session.refresh_token)
    with pytest.raises(Unauthenticated):
        await bench.accounts.reset(issued.token, "yet another long one")


async def test_until_it_is_used_a_one_time_token_leaves_the_password_alone(bench: Bench) -> None:
    await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    await bench.accounts.login(LOGIN, PASSWORD)


async def test_of_ten_uses_at_once_one_counts(bench: Bench) -> None:
    issued = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    uses = [bench.accounts.reset(issued.token, f"password number {n}") for n in range(10)]
    outcomes = await asyncio.gather(*uses, return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Unauthenticated)] == [None]
    winner = outcomes.index(None)
    await bench.accounts.login(LOGIN, f"password number {winner}")


async def test_a_newer_token_makes_the_older_void_and_time_does(bench: Bench) -> None:
    first = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    second = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    with pytest.raises(Unauthenticated):
        await bench.accounts.reset(first.token, OTHER_PASSWORD)
    bench.clock.now += second.expires_in_s
    with pytest.raises(Unauthenticated):
        await bench.accounts.reset(second.token, OTHER_PASSWORD)


async def test_a_password_that_is_refused_leaves_the_token_good(bench: Bench) -> None:
    issued = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    with pytest.raises(InvalidInput):
        await bench.accounts.reset(issued.token, "short")
    await bench.accounts.reset(issued.token, OTHER_PASSWORD)


@pytest.mark.parametrize("token", ["", ".", "a.b", "YW5h." + "A" * 43, "_" * 60 + "." + "A" * 43, "x" * 10_000, "é.é"])
async def test_what_is_no_token_of_ours_resets_nothing(bench: Bench, token: str) -> None:
    await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    with pytest.raises(Unauthenticated):
        await bench.accounts.reset(token, OTHER_PASSWORD)
    await bench.accounts.login(LOGIN, PASSWORD)


async def test_a_token_of_one_account_is_not_anothers(bench: Bench) -> None:
    await bench.add_account("u-bob", "bob")
    mine = (await bench.accounts.issue_reset(TENANT, "u-bob", "bob")).token
    await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    theirs = (await bench.accounts.issue_reset(TENANT, USER, LOGIN)).token.split(".")[0]
    with pytest.raises(Unauthenticated):
        await bench.accounts.reset(f"{theirs}.{mine.split('.')[1]}", OTHER_PASSWORD)


# -- whose name ------------------------------------------------------------------------------------------------------


async def test_a_name_belongs_to_one_user_and_a_user_has_one_name(bench: Bench) -> None:
    await bench.add_user("u-bob")
    with pytest.raises(Conflict, match="somebody else's"):
        await bench.accounts.issue_reset(TENANT, "u-bob", LOGIN.upper())
    with pytest.raises(Conflict, match=LOGIN):
        await bench.accounts.issue_reset(TENANT, USER, "another.name")
    await bench.add_user(USER, "fabrikam")
    with pytest.raises(Conflict, match="somebody else's"):
        await bench.accounts.issue_reset("fabrikam", USER, LOGIN)


async def test_an_account_does_not_turn_somebody_into_another_user(bench: Bench) -> None:
    """Where an administrator has said that the subject ``u-bob`` is somebody else."""
    await bench.add_user("u-bob")
    taken = IdentityRecord(identity_id=f"{TENANT}/u-bob", tenant_id=TENANT, user_id="u-eve")
    await bench.directory.save_identity(taken)
    await bench.directory.save_user(
        UserRecord(tenant_id=TENANT, user_id="u-eve", identities=(taken.identity_id,)), if_match=""
    )
    with pytest.raises(Conflict, match="another user"):
        await bench.accounts.issue_reset(TENANT, "u-bob", "bob")
    await bench.directory.delete_user(TENANT, "u-eve")
    await bench.accounts.issue_reset(TENANT, "u-bob", "bob")
    assert (await bench.directory.get_identity(taken.identity_id)).value.user_id == "u-bob"


async def test_an_account_is_linked_once_beside_what_its_user_is_already(bench: Bench) -> None:
    user = UserRecord(tenant_id=TENANT, user_id="u-bob", identities=(f"{TENANT}/an-older-subject",))
    await bench.directory.save_user(user)
    for _ in range(2):
        await bench.accounts.issue_reset(TENANT, "u-bob", "bob")
    linked = (await bench.directory.get_user(TENANT, "u-bob")).value.identities
    assert linked == (f"{TENANT}/an-older-subject", f"{TENANT}/u-bob")


async def test_nobody_gets_an_account_who_is_no_user(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.accounts.issue_reset(TENANT, "u-nobody", "nobody")
    with pytest.raises(NotFound):
        await bench.store.get_record(SYSTEM_TENANT, ACCOUNTS_KIND, "nobody")


@pytest.mark.parametrize("login", ["", " ", "a b", "a/b", "a\0", "x" * 129, "é"])
async def test_a_name_that_cannot_be_one_is_refused(bench: Bench, login: str) -> None:
    with pytest.raises(InvalidInput):
        await bench.accounts.issue_reset(TENANT, USER, login)


async def test_a_removed_account_frees_its_name_and_ends_its_sessions(bench: Bench) -> None:
    session = await bench.accounts.login(LOGIN, PASSWORD)
    await bench.accounts.remove(TENANT, USER)
    await bench.accounts.remove(TENANT, USER)
    await refusal(bench, LOGIN, PASSWORD)
    with pytest.raises(Unauthenticated):
        await bench.accounts.refresh(session.refresh_token)
    await bench.add_account("u-bob", LOGIN, OTHER_PASSWORD)
    await bench.accounts.login(LOGIN, OTHER_PASSWORD)
    with pytest.raises(NotFound):
        await bench.store.get_record(TENANT, ACCOUNT_NAMES_KIND, USER)


async def test_the_password_of_whoever_had_a_users_id_before_opens_nothing(bench: Bench) -> None:
    session = await bench.accounts.login(LOGIN, PASSWORD)
    await bench.directory.delete_user(TENANT, USER)
    await bench.add_user()
    await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    await refusal(bench, LOGIN, PASSWORD)
    with pytest.raises(Unauthenticated):
        await bench.accounts.refresh(session.refresh_token)


async def test_nothing_that_is_stored_is_a_secret(bench: Bench) -> None:
    issued = await bench.accounts.issue_reset(TENANT, USER, LOGIN)
    tokens = await bench.accounts.login(LOGIN, PASSWORD)
    bodies = b""
    for tenant, kind in ((SYSTEM_TENANT, ACCOUNTS_KIND), (SYSTEM_TENANT, SESSIONS_KIND), (TENANT, ACCOUNT_NAMES_KIND)):
        page = await bench.store.list_records(tenant, kind)
        bodies += b"".join(record.body for record in page.items)
    for secret in (PASSWORD, issued.token.split(".")[1], tokens.refresh_token.split(".")[2], tokens.access_token):
        assert secret.encode() not in bodies
