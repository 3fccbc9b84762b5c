"""One client on ``/ws/chat``: its frames in, and the tails of its turns out.

Frames are handled one after the other; each tail runs in a task of its own. Whoever sends holds the one lock for a whole
batch, so events of a turn stay in order and frames whole. A client that reads slowly blocks only its own sending: the
tails behind it fill their bounded buffers, are dropped to their cursors and go on from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

from msgspec.structs import replace
from starlette.types import Receive, Send

from serve_app.domain.conversation import Conversation
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.domain.turns import Query
from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    ParleyError,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
)
from serve_app.ingress.chat import ChatService
from serve_app.ingress.limits import TokenBucket, Violations
from serve_app.ingress.tail import TurnTail
from serve_app.ingress.title_watch import TitleWatch
from serve_app.ingress.ws_grant import AccessLostError, SocketGrant, has_expired
from serve_app.quotas.shares import RequestLimit
from serve_app.settings import Settings
from serve_app.telemetry import logger
from serve_app.turns.port import Notice, Title
from serve_app.wire.requests import (
    Approval,
    Cancel,
    ClientFrame,
    InputAnswer,
    Ping,
    QueryFrame,
    Resume,
    SessionUpdate,
    parse_frame,
)
from serve_app.wire.ws import INTERNAL_SENTENCE, ActiveTurn, ErrorFrame, Pong, SessionCreated, TitleFrame, WarningFrame

MAX_TAILS = 16
"""Turns shown on one socket at a time."""
FRAME_TIMEOUT_S = 30.0
"""Longest a client's frame may take to be handled; a tail is not part of it."""
DISMISS_S = 3.0
"""A client that takes no more until then is hung up on."""

CLOSE_UNAUTHENTICATED = 4401
CLOSE_NOT_PERMITTED = 4403

_log = logger("ingress.websocket")
_PONG = Pong().text()


class ChatSession:
    """Serves one accepted socket. ``request_id`` is what everything done for it is logged under."""

    def __init__(
        self,
        chat: ChatService,
        settings: Settings,
        grant: SocketGrant,
        receive: Receive,
        send: Send,
        *,
        requests: RequestLimit,
        request_id: str,
    ) -> None:
        self._chat = chat
        self._requests = requests
        self._limits = settings.limits
        self._title_wait_s = settings.turn.title_wait_s
        self._makes_titles = settings.conversation.titles
        self.grant = grant
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._role: str | None = None
        self._conversation: Conversation | None = None
        self._bucket = TokenBucket(self._limits.ws_messages_per_s)
        self._violations = Violations(self._limits.ws_violations)
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._titles = TitleWatch(chat.title_of, self._tell_title)
        self._sending = asyncio.Lock()
        self._left = False
        self._serving: asyncio.Task[object] | None = None
        self._dismissed = False
        self._dismissal: asyncio.Task[None] | None = None
        self.hung_up = False
        """Whether :meth:`hang_up` is why :meth:`serve` is being cancelled."""

    @property
    def _acting(self) -> Principal:
        """The user in the role that was asked for, as things are now."""
        return self.grant.principal.narrowed_to(self._role)

    async def serve(self, opening: SessionUpdate | None = None) -> str | None:
        """Handles frames until the client leaves (None) or has broken limits too often (the reason).

        ``opening``: the first frame, where it has been read already.
        """
        self._serving = asyncio.current_task()
        self.grant.at_end(self._expire)
        try:
            if opening is not None:
                await self._answering(self._handle(opening), None)
            return await self._read_frames()
        finally:
            self._serving = None
            self.grant.close()

    async def _read_frames(self) -> str | None:
        while not self._dismissed:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            broken = self._broken_limit(text)
            if broken is not None:
                await self._error(broken)
                if self._violations.too_many():
                    return "limits"
            elif text is not None:
                await self._take(text)
        return None

    async def leave(self, last_frame: str, code: int, reason: str) -> None:
        """Says a last frame and closes; nothing is sent after it."""
        async with self._sending:
            if self._left:
                return
            self._left = True
            await self._send({"type": "websocket.send", "text": last_frame})
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def dismiss(self, error: ParleyError) -> None:
        """Closes a socket whose user has no access to it (any more). Their turns go on."""
        code = CLOSE_UNAUTHENTICATED if isinstance(error, Unauthenticated) else CLOSE_NOT_PERMITTED
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(DISMISS_S):
                await self.leave(ErrorFrame.of(error).text(), code, error.code)
        self._left = self._dismissed = True
        if self._serving is not asyncio.current_task():
            self.hang_up()  # nothing more is read, whether the client closes as well or not

    def _expire(self) -> None:
        self._dismissal = asyncio.create_task(self.dismiss(has_expired()))

    def hang_up(self) -> None:
        """Ends :meth:`serve`, for a client that takes nothing any more: not even a goodbye can be sent."""
        self._left = True
        if self._serving is not None and not self.hung_up:  # a second cancellation would be taken for somebody else's
            self.hung_up = True
            self._serving.cancel()

    async def aclose(self) -> None:
        """Ends all tails. The turns go on."""
        self._left = True
        self.grant.close()
        await self._titles.aclose()
        tasks = [*self._tails.values(), *([self._dismissal] if self._dismissal is not None else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _broken_limit(self, text: str | None) -> ParleyError | None:
        if not self._bucket.take():
            return QuotaExceeded(f"At most {self._limits.ws_messages_per_s} messages a second; this one was not read.")
        if text is None:
            return InvalidInput("Only text frames are read here.")
        limit = self._limits.ws_frame_bytes
        # Counting bytes costs a copy, which most messages are too short to need.
        if len(text) > limit or (len(text) * 4 > limit and len(text.encode()) > limit):
            return TooLarge(f"A frame may have at most {limit} bytes.")
        return None

    async def _take(self, text: str) -> None:
        try:
            frame = parse_frame(text)
        except InvalidInput as error:
            await self._error(error)
            return
        await self._answering(self._authorized(frame), getattr(frame, "turn_id", None))

    async def _authorized(self, frame: ClientFrame) -> None:
        """Handles a frame as somebody who still may send it. Raises AccessLostError."""
        if isinstance(frame, Ping):  # does nothing, and comes often
            await self._text(_PONG)
            return
        if isinstance(frame, SessionUpdate) and frame.access_token:
            await self.grant.renew(frame.access_token)
        else:
            await self.grant.refresh()
        if not isinstance(frame, Cancel):  # nobody who has asked much is kept from stopping it
            await self._requests.spend(self.grant.principal)
        await self._handle(frame)

    async def _answering(self, handling: Coroutine[None, None, None], turn_id: str | None) -> None:
        """Handles a frame within its time; what fails is told to the client."""
        try:
            async with asyncio.timeout(FRAME_TIMEOUT_S):
                await handling
        except AccessLostError as lost:
            await self.dismiss(lost.error)
        except ParleyError as error:
            await self._error(error, turn_id)
        except TimeoutError:
            await self._error(DeadlineExceeded("This took too long; try again."), turn_id)
        except OSError:
            raise
        except Exception:
            _log.exception("frame_failed", user_id=self.grant.principal.user_id)
            await self._error(Internal(INTERNAL_SENTENCE), turn_id)

    async def _handle(self, frame: ClientFrame) -> None:
        match frame:
            case SessionUpdate():
                await self._open(frame)
            case QueryFrame():
                await self._query(frame)
            case Resume(turn_id=turn_id, after_seq=after_seq):
                self._make_room(turn_id)
                tail = await self._chat.resume(self.grant.principal, turn_id, after_seq)
                await self._show(turn_id, tail, untitled=self._untitled(tail.turn.key.conversation))
            case Cancel(turn_id=turn_id):
                await self._chat.cancel(self.grant.principal, turn_id)
            case Approval(approval_id=approval_id, approved=approved, reason=reason):
                await self._chat.answers.answer(self.grant.principal, approval_id, approved=approved, reason=reason)
            case InputAnswer():
                raise NotFound("There is no such request for input.")

    async def _open(self, frame: SessionUpdate) -> None:
        role = frame.role.lower() if frame.role is not None else None
        session = await self._chat.open_session(self.grant.principal, frame.session_id, role)
        self._role, self._conversation = role, session.conversation
        active = session.active_turn
        created = SessionCreated(
            session_id=session.conversation.key.conversation_id,
            user_id=session.principal.user_id,
            roles=session.principal.roles,
            tools=tuple(tool.name for tool in session.tools.tools),
            active_turn=None if active is None else ActiveTurn(turn_id=active.key.turn_id, seq=active.last_seq),
        )
        await self._text(created.text())

    async def _query(self, frame: QueryFrame) -> None:
        if self._conversation is None:
            raise InvalidInput("Send session.update before the first query.")
        self._make_room()  # before the turn is accepted: one that cannot be shown would be sent again
        query = Query(
            content=frame.content,
            model_id=frame.model_id,
            tool_id=frame.tool_id,
            attachments=frame.attachments or (),
        )
        sent = await self._chat.send(
            self._acting,
            self._conversation,
            query,
            client_turn_id=frame.client_turn_id,
            client_message_id=frame.client_turn_id,
            request_id=self._request_id,
            title_wait_s=self._title_wait_s,
        )
        await self._show(sent.turn.key.turn_id, sent.tail, untitled=self._untitled(sent.turn.key.conversation))

    def _make_room(self, turn_id: str | None = None) -> None:
        """Raises QuotaExceeded where no further turn can be shown; one that is shown already needs no room."""
        if len(self._tails) >= MAX_TAILS and turn_id not in self._tails:
            raise QuotaExceeded(f"At most {MAX_TAILS} turns are shown on one connection; try again when one has ended.")

    def _untitled(self, key: ConversationKey) -> bool:
        attached = self._conversation
        return self._makes_titles and attached is not None and attached.key == key and attached.title is None

    async def _show(self, turn_id: str, tail: TurnTail, untitled: bool) -> None:
        """Starts sending ``tail``; it takes the place of one of the same turn."""
        earlier = self._tails.pop(turn_id, None)
        if earlier is not None:
            earlier.cancel()
            await asyncio.gather(earlier, return_exceptions=True)
        task = asyncio.create_task(self._forward(turn_id, tail, untitled))
        self._tails[turn_id] = task
        task.add_done_callback(lambda done: self._forget(turn_id, done))

    def _forget(self, turn_id: str, task: asyncio.Task[None]) -> None:
        if self._tails.get(turn_id) is task:
            del self._tails[turn_id]

    async def _forward(self, turn_id: str, tail: TurnTail, untitled: bool) -> None:
        send = self._send
        conversation = tail.turn.key.conversation
        try:
            async for batch in tail:
                async with self._sending:
                    if self._left:
                        return
                    for item in batch:
                        if isinstance(item, Title):
                            untitled = False
                            text = self._title(conversation, item.title)
                        elif isinstance(item, Notice):
                            text = WarningFrame(turn_id=turn_id, message=item.message).text()
                        else:
                            text = item.body.decode()
                        await send({"type": "websocket.send", "text": text})
            if untitled and not self._left:
                self._titles.expect(conversation)
        except ParleyError as error:
            await self._error(error, turn_id)
        except OSError:
            self._left = True  # the client is gone; its disconnect ends the session
        except Exception:
            _log.exception("tail_failed", turn_id=turn_id)
            await self._error(Internal(INTERNAL_SENTENCE), turn_id)
        finally:
            await tail.aclose()

    def _title(self, key: ConversationKey, title: str) -> str:
        self._titles.forget(key)
        attached = self._conversation
        if attached is not None and attached.key == key:
            # Later turns of this session need not wait for one any more.
            self._conversation = replace(attached, title=title)
        return TitleFrame(session_id=key.conversation_id, title=title).text()

    async def _tell_title(self, key: ConversationKey, title: str) -> None:
        await self._text(self._title(key, title))

    async def _error(self, error: ParleyError, turn_id: str | None = None) -> None:
        await self._text(ErrorFrame.of(error, turn_id).text())

    async def _text(self, text: str) -> None:
        async with self._sending:
            if not self._left:
                await self._send({"type": "websocket.send", "text": text})
