"""Prompts from a container: read at start, followed by etag without a restart, kept while the container is away."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from serve_app.blob.container import BlobContainer
from serve_app.credentials import Secrets
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import PromptRequest
from serve_app.errors import ConfigError, NotFound
from serve_app.prompting.connect import open_prompts
from serve_app.prompting.container import PromptContainer
from serve_app.prompting.library import PromptLibrary
from serve_app.prompting.source import MAX_FILE_BYTES
from serve_app.settings import ConversationSettings, Settings
from tests.simulators.files.azurite import Azurite, new_container
from tests.simulators.files.flaky import FlakyBlob

ANA = Principal(tenant_id="acme", user_id="ana")


def text(body: str, front: str = 'roles: "*"') -> bytes:
    return f"---\n{front}\n---\n{body}\n".encode()


@dataclass
class Prompts:
    """A container that is written directly and read through the proxy. ``now`` is the reader's clock."""

    direct: BlobContainer
    place: PromptContainer
    flaky: FlakyBlob
    now: list[float] = field(default_factory=lambda: [100.0])
    library: PromptLibrary | None = None

    async def write(self, name: str, body: str, version: str = "v1", **more: Any) -> None:
        await self.direct.put(f"{name}/{version}/prompt.md", text(body, **more))

    async def start(self, **options: Any) -> None:
        await self.place.load()
        self.library = PromptLibrary(self.place, scan_every_s=0.0, **options)

    async def body_of(self, name: str = "helper") -> str:
        """As a turn finds it once the next look is due."""
        assert self.library is not None
        self.now[0] += 60
        await self.place.freshen()
        return "".join(self.library.find(name, ()).compiled.generate())

    def problems(self) -> list[str]:
        assert self.library is not None
        return self.library.problems()


@pytest.fixture
async def prompts(azurite: Azurite, flaky: FlakyBlob, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Prompts]:
    # So that what a look brings is there when the test asks, however slow the machine.
    monkeypatch.setattr("serve_app.prompting.container.FRESH_WAIT_S", 60.0)
    name = new_container("prompts")
    direct = BlobContainer.open(azurite.settings(name), azurite.secret, name)
    await direct.create()
    now = [100.0]
    reader = BlobContainer.open(flaky.settings(name), azurite.secret, name)
    place = PromptContainer(reader, refresh_every_s=10, monotonic=lambda: now[0])
    yield Prompts(direct, place, flaky, now)
    await place.close()
    await direct.close()


async def test_edits_new_versions_and_removals_are_followed_without_a_restart(prompts: Prompts) -> None:
    await prompts.write("helper", "first")
    await prompts.start()
    assert await prompts.body_of() == "first"
    await prompts.write("helper", "second, edited")
    assert await prompts.body_of() == "second, edited"
    await prompts.write("helper", "a new version", version="v10")
    await prompts.write("helper", "an older one", version="v2")
    assert await prompts.body_of() == "a new version"
    await prompts.direct.delete("helper/v10/prompt.md")
    assert await prompts.body_of() == "an older one"
    await prompts.write("other", "another")
    assert await prompts.body_of("other") == "another"
    await prompts.direct.delete_prefix("other/")
    with pytest.raises(NotFound):
        await prompts.body_of("other")
    assert prompts.problems() == []


async def test_a_look_costs_one_request_and_one_more_for_each_that_changed(prompts: Prompts) -> None:
    for name in ("one", "two", "three"):
        await prompts.write(name, name)
    await prompts.start()
    assert len(prompts.flaky.requests) == 1 + 3
    prompts.flaky.requests.clear()
    await prompts.body_of("one")
    assert len(prompts.flaky.requests) == 1
    await prompts.write("two", "changed")
    await prompts.body_of("two")
    assert len(prompts.flaky.requests) == 1 + 2
    await prompts.place.freshen()
    assert len(prompts.flaky.requests) == 3, "not due yet"


async def test_a_broken_edit_keeps_the_last_good_version_and_is_reported_once(prompts: Prompts) -> None:
    await prompts.write("helper", "good")
    await prompts.start()
    await prompts.write("helper", "{{ broken")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert await prompts.body_of() == "good"
    (problem,) = prompts.problems()
    assert f"{prompts.direct.name}/helper/v1/prompt.md, line 4" in problem
    assert [(entry["event"], entry["problem"]) for entry in logs] == [("prompt_kept_last_good", problem)]
    await prompts.write("helper", "good again")
    assert await prompts.body_of() == "good again"
    assert prompts.problems() == []


async def test_a_container_that_is_away_takes_no_prompt_away_and_is_followed_again_when_it_is_back(
    prompts: Prompts,
) -> None:
    await prompts.write("helper", "good")
    await prompts.start()
    await prompts.write("helper", "edited meanwhile")
    prompts.flaky.fail("*", times=1000, how=403)
    with structlog.testing.capture_logs() as logs:
        assert await prompts.body_of() == "good"
        assert await prompts.body_of() == "good"
    assert "cannot be read: Blob Storage refuses access" in prompts.problems()[0]
    assert len([entry for entry in logs if entry["event"] == "prompt_kept_last_good"]) == 1
    prompts.flaky.recover()
    assert await prompts.body_of() == "edited meanwhile"
    assert prompts.problems() == []


async def test_an_unchanged_container_that_was_away_has_no_problem_any_more(prompts: Prompts) -> None:
    await prompts.write("helper", "good")
    await prompts.start()
    prompts.flaky.fail("*", times=1000, how=403)
    await prompts.body_of()
    assert prompts.problems() != []
    prompts.flaky.recover()
    await prompts.body_of()
    assert prompts.problems() == []


async def test_a_slow_container_holds_a_turn_up_for_a_moment_only(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.prompting.container.FRESH_WAIT_S", 0.01)
    await prompts.write("helper", "good")
    await prompts.start()
    prompts.flaky.fail("*", times=1000, how="hang")
    assert await prompts.body_of() == "good"


async def test_a_required_prompt_that_was_removed_is_kept(prompts: Prompts) -> None:
    await prompts.write("helper", "good")
    await prompts.start(required=["helper"])
    await prompts.direct.delete_prefix("helper/")
    assert await prompts.body_of() == "good"
    assert "'helper' is needed" in prompts.problems()[0]
    assert "PARLEY_AZURE__PROMPTS_CONTAINER" in prompts.problems()[0]


async def test_other_blobs_are_ignored_and_what_cannot_be_a_prompt_is_named(prompts: Prompts) -> None:
    for name in ("README.md", "helper/notes.txt", ".git/v1/prompt.md", "helper/_old/prompt.md"):
        await prompts.direct.put(name, b"x")
    await prompts.write("helper", "good")
    await prompts.start()
    assert await prompts.body_of() == "good"
    await prompts.direct.put("helper/v2/promt.md", text("misspelt"))
    await prompts.direct.put("helper/v3/prompt.md", b"")
    await prompts.direct.put("helper/v4/prompt.md", text("x" * MAX_FILE_BYTES))
    assert await prompts.body_of() == "good"
    assert [
        part in problem
        for part, problem in zip(
            ("v2/prompt.md does not exist", "v3/prompt.md, line 1", f"larger than {MAX_FILE_BYTES} bytes"),
            prompts.problems(),
            strict=True,
        )
    ] == [True] * 3


async def test_more_blobs_than_are_looked_at_are_a_problem_and_take_no_prompt_away(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.prompting.container.MAX_BLOBS", 3)
    await prompts.write("zebra", "good")
    for name in ("a", "b"):
        await prompts.direct.put(name, b"x")
    await prompts.start()
    assert await prompts.body_of("zebra") == "good"
    await prompts.direct.put("c", b"x")
    assert await prompts.body_of("zebra") == "good"
    assert "it has more than 3 blobs" in prompts.problems()[0]
    await prompts.direct.delete("c")
    assert await prompts.body_of("zebra") == "good"
    assert prompts.problems() == []


async def test_a_container_that_cannot_be_read_or_has_a_broken_prompt_stops_the_start(
    prompts: Prompts, azurite: Azurite
) -> None:
    await prompts.write("helper", "{{ broken")
    with pytest.raises(ConfigError, match=r"helper/v1/prompt\.md, line 4"):
        await prompts.start()
    missing = PromptContainer(BlobContainer.open(azurite.settings(), azurite.secret, "nowhere"))
    with pytest.raises(ConfigError, match="no container 'nowhere'"):
        await missing.load()
    await missing.close()


async def test_the_settings_choose_container_or_folder(prompts: Prompts, azurite: Azurite, tmp_path: Path) -> None:
    await prompts.write("assistant", "From the container.")
    azure = azurite.settings(prompts_container=prompts.direct.name)
    only_assistant = ConversationSettings(titles=False)
    settings = Settings(azure=azure, conversation=only_assistant)
    builder = await open_prompts(settings, Secrets(azure_storage_key=azurite.secret))
    built = await builder.build(PromptRequest(principal=ANA, query="Hello"))
    assert built.session_prompt.text == "From the container."
    await builder.close()
    shipped = await open_prompts(Settings(conversation=only_assistant), Secrets())
    assert (await shipped.build(PromptRequest(principal=ANA, query="Hello"))).session_prompt.text != ""
    await shipped.close()
