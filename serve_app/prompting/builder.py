"""The prompt builder itself, in the process of its caller. Order of a prompt: system → history → user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime

from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.untrusted import NOTICE
from serve_app.errors import Internal, NotFound, TooLarge
from serve_app.files.attachments import Attachment, read_attachments
from serve_app.files.port import FileStore
from serve_app.prompting.attachments import query_with_files
from serve_app.prompting.choices import chosen_settings
from serve_app.prompting.library import PromptLibrary
from serve_app.prompting.session import session_prompt
from serve_app.prompting.template import PromptTemplate
from serve_app.prompting.tokens import PRIMING_TOKENS, TokenCounter, message_tokens, shortened
from serve_app.prompting.window import Window, fit

TITLE_PROMPT = "title"
MAX_TITLE_CONTENT_TOKENS = 500
"""A title needs the beginning of a message only."""

_NOBODY = Principal(tenant_id="", user_id="")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LocalPromptBuilder:
    """Implements ``PromptBuilder``.

    ``clock`` gives the current time; the date in prompts is that of UTC, wherever users are. ``server_descriptions`` are
    the operator's, by tool server; a change of them renews the prompts that were made from them. ``freshen`` is awaited before
    a prompt is chosen, ``close`` with this one's end. ``files`` are read where a query comes with some.
    """

    def __init__(
        self,
        library: PromptLibrary,
        counter: TokenCounter,
        *,
        default_prompt: str = "assistant",
        role_prompts: Mapping[str, str] | None = None,
        history_messages: int = 16,
        clock: Callable[[], datetime] = _utc_now,
        server_descriptions: Mapping[str, str] | None = None,
        files: FileStore | None = None,
        freshen: Callable[[], Awaitable[None]] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._library = library
        self._counter = counter
        self._default_prompt = default_prompt
        self._role_prompts = dict(role_prompts or {})
        self._history_messages = history_messages
        self._clock = clock
        self._server_descriptions = dict(server_descriptions or {})
        self._files = files
        self._freshen = freshen
        self._close = close
        self._loaded = False

    async def load(self) -> None:
        """Loads the tokenizer; without this the first prompt waits for it."""
        if not self._loaded:
            # In a thread, so that what else runs in this process goes on meanwhile.
            await asyncio.to_thread(self._counter.load)
            self._loaded = True

    async def close(self) -> None:
        """Lets go of where the prompts come from; the files are their opener's."""
        if self._close is not None:
            await self._close()

    async def build(self, request: PromptRequest) -> Prompt:
        await self.load()
        await self._look_for_changes()
        attached = await self._attached(request.principal, request.attachments)
        template = self._choose(request)
        choices = request.principal.terms.choices
        session = session_prompt(
            template,
            request.principal,
            request.tools,
            self._today(),
            server_descriptions=self._server_descriptions,
            kept=request.kept,
        )
        try:
            window = self._fit(request, template, session.text, query_with_files(request.query, attached))
        except TooLarge:
            if not any(attachment.text for attachment in attached):
                raise
            query = query_with_files(request.query, attached, contents=False)
            window = self._fit(request, template, session.text, query)
        return Prompt(
            messages=window.messages,
            session_prompt=session,
            settings=chosen_settings(template.settings, choices),
            model_id=choices.model_id or template.model_id,
            input_tokens=window.input_tokens,
            dropped_messages=window.dropped_messages,
        )

    def _fit(self, request: PromptRequest, template: PromptTemplate, system: str, query: str) -> Window:
        return fit(
            self._counter,
            system=f"{system}\n\n{NOTICE}" if _may_quote(request) else system,
            history=request.history,
            query=query,
            tools=request.tools,
            history_messages=self._history_messages,
            context_tokens=request.context_tokens,
            max_output_tokens=chosen_settings(template.settings, request.principal.terms.choices).max_output_tokens,
        )

    async def _attached(self, principal: Principal, attachments: Sequence[str]) -> Sequence[Attachment]:
        if not attachments:
            return ()
        if self._files is None:
            raise Internal("A query came with files, and this prompt builder has no file store.")
        return await read_attachments(self._files, principal, attachments)

    async def _look_for_changes(self) -> None:
        if self._freshen is not None:
            await self._freshen()

    async def names(self, principal: Principal) -> tuple[str, ...]:
        await self._look_for_changes()
        return tuple(name for name in self._library.names(principal.roles) if name != TITLE_PROMPT)

    async def versions(self) -> dict[str, tuple[str, ...]]:
        await self._look_for_changes()
        return {name: versions for name, versions in self._library.versions().items() if name != TITLE_PROMPT}

    async def title(self, content: str) -> Prompt:
        await self.load()
        await self._look_for_changes()
        template = self._library.own(TITLE_PROMPT)
        session = session_prompt(template, _NOBODY, (), self._today(), server_descriptions={})
        messages = (
            ModelMessage(role="system", content=session.text),
            ModelMessage(role="user", content=shortened(self._counter, content, MAX_TITLE_CONTENT_TOKENS, " …")),
        )
        return Prompt(
            messages=messages,
            session_prompt=session,
            settings=template.settings,
            model_id=template.model_id,
            input_tokens=PRIMING_TOKENS + sum(message_tokens(self._counter, message) for message in messages),
        )

    def problems(self) -> list[str]:
        """A sentence for each prompt file that cannot be used now; their last good versions are in use."""
        return self._library.problems()

    def _choose(self, request: PromptRequest) -> PromptTemplate:
        if request.prompt_version is None:
            return self._in_use(request)
        name = request.prompt_name or self._in_use(request).name
        return self._library.find(name, request.principal.roles, request.prompt_version)

    def _in_use(self, request: PromptRequest) -> PromptTemplate:
        roles = request.principal.roles
        if request.prompt_name is not None:
            return self._library.find(request.prompt_name, roles)
        if request.kept is not None:
            try:
                return self._library.find(request.kept.name, roles)
            except NotFound:
                # The conversation outlives its prompt: removed, or no longer this user's to use.
                pass
        for role in roles:
            if role in self._role_prompts:
                return self._library.find(self._role_prompts[role], roles)
        return self._library.find(self._default_prompt, roles)

    def _today(self) -> date:
        return self._clock().astimezone(UTC).date()


def _may_quote(request: PromptRequest) -> bool:
    """Whether others' words are in this prompt, or may come with a tool's result: what the model is told is then said once."""
    return bool(request.attachments) or any(not tool.trusted for tool in request.tools) or _quotes(request)


def _quotes(request: PromptRequest) -> bool:
    return any(
        isinstance(part, ToolResultPart) and part.untrusted for message in request.history for part in message.parts
    )
