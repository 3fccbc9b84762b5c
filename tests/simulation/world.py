"""One simulated world: replicas, ingresses, clients and a store, run through a schedule to its quiet end.

After the last action everything that was killed is replaced, what is stopped wakes up, and no fault strikes any more. From
then on every turn has a bounded time to end, and every client to see it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from serve_app.domain.conversation import Message
from serve_app.domain.ids import ConversationKey
from serve_app.domain.turns import Owner, TurnState
from serve_app.errors import NotFound
from serve_app.files.filesystem import FilesystemFiles
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.ingress.chat import ChatService
from serve_app.ingress.services import IngressServices
from serve_app.settings import ConversationSettings, LimitSettings, Settings, TurnSettings
from serve_app.storage.port import Store
from serve_app.storage.rules import UNCLAIMED_S
from serve_app.turns.stage import TurnsStage
from tests.scripted import PlainPrompts
from tests.simulation.client import PRINCIPAL, Client, Ingress, Sending
from tests.simulation.faults import Faults
from tests.simulation.invariants import check_end
from tests.simulation.ledger import Ledger, Verdict, at_once
from tests.simulation.loop import Process, SimLoop
from tests.simulation.schedule import DURATIONS_S, Action, Schedule
from tests.simulation.stages import Outside, SimModels, SimTools
from tests.simulation.store import SimStore
from tests.simulation.turns import Replica, SimTurns

T = TypeVar("T", Replica, Ingress)

TURN = TurnSettings(timeout_s=30.0, model_timeout_s=15.0, tool_timeout_s=6.0, max_steps=3, store_patience_s=12.0)
REPLACED_AFTER_S = 1.0
SLACK_S = 6.0
"""For messages on their way, polls and retries of clients."""
SEEN_AFTER_S = 40.0
"""How long after the last turn has ended a client that comes back may take to see it."""


class NoMetrics:
    """Takes what is counted."""

    def count(self, name: str, value: float = 1, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to: for measuring, and to see that it replays."""

    turns: dict[str, TurnState]
    """Turn → the state in which it ended."""
    model_calls: tuple[dict[int, int], ...]
    """Of each turn: step → calls of the model for it."""
    logs: tuple[tuple[bytes, ...], ...]
    takeovers: int
    faults: int
    steps: int
    seconds: float


class World:
    def __init__(self, schedule: Schedule, loop: SimLoop) -> None:
        self.schedule = schedule
        self.loop = loop
        self.verdict = Verdict()
        self.ledger = Ledger(self.verdict, schedule.durability)
        self.faults = Faults(loop, schedule.faults, random_latencies=schedule.seed != 0)
        self.outside = Outside(self.ledger, self.faults, schedule.piece_s)
        self.settings = Settings(
            turn=TURN.model_copy(update={"durability": schedule.durability}),
            conversation=ConversationSettings(titles=schedule.titles, on_busy=schedule.on_busy, max_waiting=2),
            limits=LimitSettings(tail_items=schedule.tail_items),
        )
        self.processes: list[Process] = []
        self.replicas: list[Replica] = []
        self.ingresses: list[Ingress] = []
        self.devices = self.process("devices")
        self.clients = [
            Client(f"client {number}", self.devices, self.pick_ingress, self.verdict)
            for number in range(schedule.clients)
        ]
        self._sent = 0

    def process(self, name: str) -> Process:
        process = Process(name, self.loop)
        self.processes.append(process)
        return process

    def add_replica(self) -> None:
        name = f"turns {len(self.replicas)}"
        process = self.process(name)
        replica = Replica(process, Owner(replica_id=name, endpoint=f"sim://{name}"))
        replica.stage = TurnsStage(
            owner=replica.owner,
            settings=self.settings,
            store=self.store_for(process),
            prompts=PlainPrompts(),
            models=SimModels(process, self.outside),
            tools=SimTools(process, self.outside),
            metrics=NoMetrics(),
            start_turn=self.turns_for(process).start,
        )

        async def start() -> None:
            replica.stage.start()

        process.spawn(start())
        self.replicas.append(replica)
        process.died.add_done_callback(lambda _: self.loop.call_later(REPLACED_AFTER_S, self.add_replica))

    def add_ingress(self) -> None:
        process = self.process(f"ingress {len(self.ingresses)}")
        services = IngressServices(
            settings=self.settings,
            store=self.store_for(process),
            files=FilesystemFiles(Path("no files"), self.settings.files),  # nobody sends any, so no folder is made
            turns=self.turns_for(process),
            models=SimModels(process, self.outside),
            tools=SimTools(process, self.outside),
            prompts=PlainPrompts(),
            authenticator=DevelopmentAuthenticator(),
            metrics=NoMetrics(),
        )
        self.ingresses.append(Ingress(process, ChatService(services)))
        process.died.add_done_callback(lambda _: self.loop.call_later(REPLACED_AFTER_S, self.add_ingress))

    def store_for(self, process: Process) -> Store:
        return cast(Store, SimStore(process, self.ledger, self.faults))

    def turns_for(self, process: Process) -> SimTurns:
        return SimTurns(process, lambda: self.replicas, self.faults, self.ledger, self.schedule.tail_items)

    def pick_ingress(self) -> Ingress | None:
        alive = [ingress for ingress in self.ingresses if ingress.process.alive]
        return self.loop.rng.choice(alive) if alive else None

    async def run(self) -> None:
        """The schedule, and then the time that everything is given to end."""
        for _ in range(self.schedule.replicas):
            self.add_replica()
        for _ in range(2):
            self.add_ingress()
        for action in self.schedule.actions:
            await asyncio.sleep(action.after_s)
            self.act(action)
            if self.verdict.violation is not None:
                return
        calm = asyncio.create_task(self._calm_later())
        await self._turns_end()
        calm.cancel()
        self.faults.over = True
        # What is still on its way arrives, who is stopped wakes up and tries to write, and that may begin turns.
        await asyncio.sleep(max(0.0, self.faults.over_at_s - self.loop.time()))
        await self._turns_end()
        await self._clients_see_it()
        if self.verdict.violation is None:
            self.verdict.expect(
                not self.loop.complaints, "the program has nothing to complain of", str(self.loop.complaints[:3])
            )
            check_end(self.ledger, self.clients, self.outside, TURN)

    def act(self, action: Action) -> None:
        client = self.clients[action.who % len(self.clients)]
        turns = list(self.ledger.turns)
        turn_id = turns[action.which % len(turns)] if turns else None
        match action.kind:
            case "send":
                self._send(client, action, None)
            case "replace":
                messages = self._messages(self._conversation(action))
                self._send(client, action, messages[action.which % len(messages)] if messages else None)
            case "run_again" if turn_id is not None:
                # Somebody's request to run a turn, delivered once more; whatever has become of the turn.
                self.turns_for(self.devices).start(self.ledger.turns[turn_id].key)
            case "watch" if turn_id is not None:
                client.watch(turn_id)
            case "cancel" if turn_id is not None:
                client.cancel(turn_id)
            case "leave":
                client.leave()
            case "come_back":
                client.come_back()
            case "kill" | "stop":
                self._strike(action, self._alive(self.replicas, action.which))
            case "kill_ingress" | "stop_ingress":
                self._strike(action, self._alive(self.ingresses, action.which))
            case "drain" if (ingress := self._alive(self.ingresses, action.which)) is not None:
                ingress.chat.drain()
                self.loop.call_later(5.0, ingress.process.kill)
            case _:
                pass

    def _strike(self, action: Action, struck: Replica | Ingress | None) -> None:
        if struck is not None and action.kind.startswith("kill"):
            struck.process.kill()
        elif struck is not None:
            self.faults.stop(struck.process, action.duration_s)

    def _send(self, client: Client, action: Action, replaced: Message | None) -> None:
        self._sent += 1
        content = f"question {self._sent}"
        if replaced is not None and replaced.role == "assistant":
            # The question is asked again, in its own words.
            content = self.ledger.turns[replaced.turn_id].accepted.query.content
        self.outside.scripts[content] = action.steps
        client.send(
            Sending(
                client_turn_id=f"message {self._sent}",
                conversation_id=self._conversation(action).conversation_id,
                content=content,
                replaces=None if replaced is None else replaced.message_id,
            )
        )

    def _conversation(self, action: Action) -> ConversationKey:
        return ConversationKey.of(PRINCIPAL, f"talk{action.which % self.schedule.conversations}")

    def _messages(self, key: ConversationKey) -> tuple[Message, ...]:
        try:
            return at_once(self.ledger.store.list_messages(key, limit=200)).items
        except NotFound:
            return ()

    def _alive(self, those: Sequence[T], which: int) -> T | None:
        alive = [one for one in those if one.process.alive]
        return alive[which % len(alive)] if alive else None

    async def _calm_later(self) -> None:
        """Faults go on striking while turns run, but not for ever."""
        await asyncio.sleep(TURN.timeout_s)
        self.faults.over = True

    async def _turns_end(self) -> None:
        """Waits until every accepted turn has ended. The bound is that of one turn, for each that may have to wait."""
        bound_s = self.bound_s * max(1, len(self.ledger.turns))
        give_up = self.loop.time() + bound_s
        while not (self.ledger.all_ended and not self._sending()):
            if self.verdict.violation is not None:
                return
            late = [account.key.turn_id for account in self.ledger.turns.values() if account.ended_at_s is None]
            if self.loop.time() > give_up:
                self.verdict.fail("every accepted turn ends", f"not within {bound_s:g} s: {late}")
                return
            await asyncio.sleep(0.25)

    @property
    def bound_s(self) -> float:
        """From its acceptance, or from when trouble is over, to the end of a turn that need not wait for another."""
        takeover_s = TURN.lease_s + 1.3 * TURN.sweep_s + max(DURATIONS_S)
        return 2 * TURN.timeout_s + UNCLAIMED_S + takeover_s + SLACK_S

    def _sending(self) -> bool:
        return any(s.turn_id is None and s.refused is None for c in self.clients for s in c.sendings)

    async def _clients_see_it(self) -> None:
        give_up = self.loop.time() + SEEN_AFTER_S + max(DURATIONS_S)
        for client in self.clients:
            client.come_back()
        # One who was not there sees all of it from the log.
        late = Client("a late reader", self.devices, self.pick_ingress, self.verdict)
        self.clients.append(late)
        for turn_id in self.ledger.turns:
            late.watch(turn_id)
        while any(client.busy for client in self.clients):
            if self.verdict.violation is not None:
                return
            if self.loop.time() > give_up:
                blind = [view.turn_id for c in self.clients for view in c.views.values() if not view.ended]
                self.verdict.fail("every client sees the end", f"not within {SEEN_AFTER_S:g} s: {blind}")
                return
            await asyncio.sleep(0.25)

    def outcome(self) -> Outcome:
        states = {turn_id: self.ledger.turn(account.key).state for turn_id, account in self.ledger.turns.items()}
        logs = tuple(
            tuple(record.body for record in self.ledger.records(account.key)) for account in self.ledger.turns.values()
        )
        takeovers = sum(max(0, len(account.claims) - 1) for account in self.ledger.turns.values())
        calls = tuple(account.model_calls for account in self.ledger.turns.values())
        return Outcome(states, calls, logs, takeovers, len(self.faults.struck), self.loop.steps, self.loop.time())
