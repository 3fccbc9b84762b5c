"""Files over the real ingress and each store: uploaded, fetched again, and given to a model with a question."""

from __future__ import annotations

import uuid

from tests.e2e.protocol_client import Api, Json, read_ui_stream
from tests.e2e.server import ParleyServer

PLAN = b"Minutes: the plan is ready on Tuesday.\n"


async def upload(api: Api, content: bytes = PLAN, name: str = "minutes.txt", media_type: str = "text/plain") -> Json:
    reply = await api.http.post("/api/file", files={"file": (name, content, media_type)})
    assert reply.status_code == 201, reply.text
    kept: Json = reply.json()
    return kept


async def test_a_file_comes_back_as_it_was_sent_whole_and_in_part(api: Api) -> None:
    content = bytes(range(256)) * 9_000
    kept = await upload(api, content, "Zahlen ß.bin", "application/octet-stream")
    assert kept["bytes"] == len(content)
    reply = await api.http.get(kept["url"])
    assert reply.content == content
    assert "Zahlen%20%C3%9F.bin" in reply.headers["content-disposition"]
    part = await api.http.get(kept["url"], headers={"range": "bytes=70000-70099"})
    assert (part.status_code, part.content) == (206, content[70000:70100])
    again = await api.http.get(kept["url"], headers={"if-none-match": reply.headers["etag"]})
    assert again.status_code == 304


async def test_a_file_of_somebody_else_looks_like_no_file(api: Api, graph: ParleyServer) -> None:
    kept = await upload(api)
    async with Api.as_new_user(graph.url) as other:
        for path in (kept["url"], f"/api/file/{kept['file_id']}"):
            theirs = await other.http.get(path)
            missing = await other.http.get(path.replace(kept["file_id"], "f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND"))
            assert theirs.status_code == missing.status_code == 404
            assert {**theirs.json(), "request_id": ""} == {**missing.json(), "request_id": ""}
    assert (await api.http.delete(f"/api/file/{kept['file_id']}")).status_code == 204
    assert (await api.http.get(kept["url"])).status_code == 404


async def test_a_model_reads_the_file_that_goes_with_a_question_over_a_socket(api: Api) -> None:
    kept = await upload(api)
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.ask("When?", model_id="reads-files", attachments=[kept["file_id"]])
    assert turn.last["response"] == "The file says Tuesday."


async def test_a_model_reads_the_file_of_a_file_part_of_the_ai_sdk(api: Api) -> None:
    kept = await upload(api)
    parts = [
        {"type": "text", "text": "When?"},
        {"type": "file", "mediaType": kept["media_type"], "filename": kept["name"], "url": kept["url"]},
    ]
    messages = [{"id": f"m{uuid.uuid4().hex}", "role": "user", "parts": parts}]
    body = {"messages": messages, "trigger": "submit-message", "modelId": "reads-files"}
    async with api.http.stream("POST", "/api/chat", json=body) as response:
        shown = await read_ui_stream(response)
    assert shown.text == "The file says Tuesday."
    (question, _) = await api.messages(shown.turn_id.partition(".")[0])
    assert question["parts"] == [{"type": "text", "text": "When?"}], "what is kept is what the user wrote"


async def test_a_question_with_a_file_that_is_not_there_is_refused(api: Api) -> None:
    async with api.socket() as chat:
        await chat.start_session()
        await chat.send({"type": "query", "content": "When?", "attachments": ["f_01JCQ2Z7M5Y8W3X9K4T6V1B0ND"]})
        error = await chat.until("error")
    assert error["code"] == "not_found"
