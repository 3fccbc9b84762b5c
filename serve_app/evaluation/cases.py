"""A case: a conversation, and what is expected of the answer to its last question.

{"id": "crm-001",
 "messages": [
   {"role": "user", "content": "…"},
   {"role": "assistant", "content": "…", "tool_calls": [{"name": "crm.find_account", "arguments": {…}, "result": {…}}]},
   {"role": "user", "content": "…"}],
 "expected": {"answer": "…", "facts": ["…"], "tool_calls": [{"name": "…", "arguments": {…}}], "refusal": false},
 "tags": ["crm"], "tenant": "acme", "role": "sales"}
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.trial import RecordedCall


class ExpectedCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call that should be made. ``arguments`` None: whichever; else those named must be as here."""

    name: str
    arguments: dict[str, Any] | None = None


class Expected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the answer should be; None (and no facts) says nothing of it.

    ``facts``: texts that must be in it. ``tool_calls``: empty means that none may be made. ``number``: a figure that must be in
    it. ``schema``: a JSON schema that the answer, read as JSON, must keep. ``pattern``: a regular expression found in it.
    """

    answer: str | None = None
    facts: tuple[str, ...] = ()
    tool_calls: tuple[ExpectedCall, ...] | None = None
    refusal: bool | None = None
    number: float | None = None
    pattern: str | None = None
    schema: dict[str, Any] | None = None


class CaseMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. ``tool_calls`` (an assistant's) have their results with them, as far as they were recorded."""

    role: Literal["system", "user", "assistant"]
    content: str = ""
    tool_calls: tuple[RecordedCall, ...] = ()


class Case(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``messages`` end with a question, or with the answer that was given to it then, which is for comparing with.

    ``tenant`` and ``role``: as whom it is asked; None leaves it to the run. ``source``: where it was read (file and line).
    """

    id: str
    messages: tuple[CaseMessage, ...]
    expected: Expected = Expected()
    tags: tuple[str, ...] = ()
    tenant: str | None = None
    role: str | None = None
    metadata: dict[str, Any] = {}
    source: str = ""
