"""Each way in, against a server that keeps its promises and one that does not: every broken promise is caught, and only those."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from load_tests.answer import Answer, BrokenPromise, Refused
from load_tests.clock import now
from load_tests.filler import expected_text
from load_tests.ways.completions import CompletionsWay
from load_tests.ways.sse import SseWay
from load_tests.ways.way import Question, Visitor, Way
from load_tests.ways.ws import WsWay
from tests.simulators.load_tests.liar import MODEL, PIECES, WHOLE, make_liar
from tests.simulators.load_tests.serving import in_thread, only

WAYS: dict[str, type[WsWay] | type[SseWay] | type[CompletionsWay]] = {
    "ws": WsWay, "sse": SseWay, "completions": CompletionsWay,
}  # fmt: skip


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    with in_thread(only(make_liar())) as url:
        yield url


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, liar: str) -> Iterator[Way]:
    made = WAYS[request.param](Visitor(liar, "me", {"X-Dev-User": "me"}))
    made.open()
    yield made
    made.close()


@contextmanager
def one_answer(content: bytes) -> Iterator[str]:
    """A server that reads a request, answers with ``content``, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(content)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)
    listener.close()


def ask(way: Way, text: str) -> Answer:
    answer = Answer(now(), expected_text(MODEL))
    way.ask(Question(text, MODEL), answer)
    return answer


def test_an_answer_as_promised_is_whole_timed_and_counted(way: Way) -> None:
    for _ in range(3):
        answer = ask(way, "right")
        assert (answer.response, answer.code) == (WHOLE, "")
        assert answer.first_text_at is not None
        assert answer.ended_at is not None
        assert answer.due_at <= answer.first_text_at <= answer.ended_at
        assert sum(answer.gaps_s) <= answer.ended_at - answer.first_text_at + 0.001
        if not isinstance(way, SseWay):  # whose stream says nothing of tokens
            assert (answer.input_tokens, answer.output_tokens) == (5, len(PIECES))


@pytest.mark.parametrize("lie", ["lost piece", "doubled piece", "second end", "late piece"])
def test_a_promise_that_every_way_makes_is_watched(way: Way, lie: str) -> None:
    with pytest.raises(BrokenPromise):
        ask(way, lie)
        ask(way, "right")  # what came too late shows at the next answer at the latest


def test_a_refusal_that_breaks_off_is_a_broken_connection() -> None:
    head = b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    with one_answer(head + b"40\r\n{") as url, pytest.raises(OSError, match="no response"):
        ask(CompletionsWay(Visitor(url, "me", {})), "right")


def test_an_ipv6_address_without_a_port_is_asked_at_the_schemes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    for url in ("http://[::1]", "https://[::1]", "http://[::1]:8000"):
        with pytest.raises(ConnectionRefusedError):
            CompletionsWay(Visitor(url, "me", {})).open()
    assert asked == [("::1", 80), ("::1", 443), ("::1", 8000)]


@pytest.mark.parametrize("lie", ["gap", "doubled event", "another turn", "no beginning", "other answer"])
def test_numbers_of_events_are_watched_over_the_socket(liar: str, lie: str) -> None:
    way = WsWay(Visitor(liar, "me", {}))
    way.open()
    with pytest.raises(BrokenPromise):
        ask(way, lie)
    way.close()


@pytest.mark.parametrize("lie", ["gap", "doubled event", "outside its part"])
def test_ids_of_chunks_are_watched_in_the_stream(liar: str, lie: str) -> None:
    way = SseWay(Visitor(liar, "me", {}))
    with pytest.raises(BrokenPromise):
        ask(way, lie)
    way.close()


def test_another_answers_chunk_is_caught_in_a_completion(liar: str) -> None:
    way = CompletionsWay(Visitor(liar, "me", {}))
    with pytest.raises(BrokenPromise, match="somebody-elses"):
        ask(way, "another turn")
    way.close()


def test_a_turn_that_failed_in_order_is_a_failure_with_its_code_and_no_broken_promise(way: Way) -> None:
    answer = ask(way, "failed")
    assert answer.code == ("failed" if isinstance(way, SseWay) else "upstream_failed")
    assert answer.ended_at is not None


def test_a_refusal_has_the_servers_code_and_the_next_question_is_answered(way: Way) -> None:
    with pytest.raises(Refused) as refused:
        ask(way, "refusal")
    assert refused.value.code == "overloaded"
    assert ask(way, "right").response == WHOLE


def test_a_stream_that_ends_in_the_middle_is_no_answer(way: Way) -> None:
    if isinstance(way, WsWay):
        return  # silence is for whoever has the clock: the user
    if isinstance(way, SseWay):
        with pytest.raises(Refused):  # asked for the rest, this server knows nothing of the turn
            ask(way, "no end")
    else:
        with pytest.raises(OSError, match="DONE"):
            ask(way, "no end")


def test_a_server_that_hangs_up_each_time_is_not_asked_for_ever(liar: str) -> None:
    way = WsWay(Visitor(liar, "me", {}))
    way.open()
    with pytest.raises(OSError):
        ask(way, "hang up")
    way.close()
