"""What the fake backend answers, by what the question contains: events without their numbers, gates and cuts."""

from __future__ import annotations

import re
from typing import Any

JSON = dict[str, Any]

TOOLS = {
    "crm.find_account": "Find accounts (customers, companies) by name.",
    "crm.list_opportunities": "List the sales opportunities of an account.",
    "hr.find_employee": "Find employees by name or department.",
    "hr.get_leave_balance": "Get the leave balance of an employee.",
}


class Gate:
    """The answer waits here until the test opens the gate, or the user stops it."""


class Answered:
    """The answer waits here until the user has answered the question before; what would be done on a yes, and on a no."""

    def __init__(self, approved: list[JSON], declined: list[JSON]) -> None:
        self.approved = approved
        self.declined = declined


class Cut:
    """All connections are cut here; the turn goes on."""


Item = JSON | Gate | Answered | Cut

OPPORTUNITIES = """Contoso has **three open opportunities**, worth *413,000 EUR* together:

| Opportunity | Stage | Amount | Closes |
| :-- | :-- | --: | :-- |
| Cloud migration | Negotiation | 240,000 | 2026-12-15 |
| Analytics platform | Proposal | 125,000 | 2027-01-31 |
| Support contract | Qualification | 48,000 | 2027-02-28 |

### What to do next

1. Settle the **cloud migration**: it closes first.
2. Send the proposal for the analytics platform.
   - Ask for the number of users
   - Mention [the case study](https://example.com/case-study)
3. Qualify the support contract.

> Amounts are in whole euros; the probability is not included.

To see the same yourself, run:

```python
for deal in crm.opportunities("Contoso", open=True):
    print(f"{deal.name:<24} {deal.amount:>10,}")
```

Ask about any one of them with `details of <name>`.
"""

HOSTILE = """<script>window.pwned = 1</script> <img src=x onerror="window.pwned = 2">

[click](javascript:window.pwned=3) [data](data:text/html,<script>window.pwned=4</script>)
[vb](vbscript:x) [ok](https://example.com/ok) ![pixel](http://127.0.0.1:9/pixel.png) <javascript:window.pwned=5>

<svg onload="window.pwned = 6"></svg> <iframe src="javascript:parent.pwned=7"></iframe>

| <b onmouseover="window.pwned=8">cell</b> | x |
| --- | --- |
| <style>body{display:none}</style> | `<img src=x onerror=window.pwned=9>` |

```html" onclick="window.pwned=10
<script>window.pwned = 11</script>
```
[java\nscript](java\nscript:window.pwned=12) [ctl](\x01javascript:window.pwned=13) [ent](java&#115;cript:window.pwned=14)
"""

HOSTILE_TITLE = '<img src=x onerror="window.pwned=20"><script>window.pwned=21</script>'


def numbers(begin: int, end: int) -> str:
    return "".join(f"{number} " for number in range(begin, end))


def text(content: str, size: int = 7) -> list[Item]:
    """Deltas of a few characters each, as a model sends them."""
    return [{"type": "text.delta", "delta": content[start : start + size]} for start in range(0, len(content), size)]


def tool(call_id: str, name: str, arguments: JSON, result: Any, ok: bool = True) -> tuple[JSON, JSON]:
    started = {"type": "tool.started", "tool_call_id": call_id, "name": name, "arguments": arguments}
    finished = {"type": "tool.finished", "tool_call_id": call_id, "name": name, "ok": ok, "result": result}
    return started, finished | {"duration_ms": 42}


def script_for(question: str) -> list[Item]:
    for pattern, items in _SCRIPTS.items():
        if re.search(pattern, question, re.IGNORECASE):
            return items()
    return [*text(f"You said: {question}"), {"type": "title", "title": "A small talk"}]


def _opportunities() -> list[Item]:
    found = tool("a", "crm.find_account", {"name": "Contoso"}, {"accounts": [{"id": "ACC-001", "name": "Contoso"}]})
    listed = tool("b", "crm.list_opportunities", {"account": "Contoso"}, {"total": 3, "opportunities": []})
    title: JSON = {"type": "title", "title": "Contoso's opportunities"}
    return [*text("Let me look that up."), found[0], listed[0], *found[1:], *listed[1:], title, *text(OPPORTUNITIES)]


def _held_tool() -> list[Item]:
    started, finished = tool("a", "crm.find_account", {"name": "Contoso"}, {"accounts": []})
    return [started, Gate(), finished, *text("Done.")]


def _asking() -> list[Item]:
    started, finished = tool("u", "crm.update_opportunity", {"id": "OPP-1001", "stage": "lost"}, {"stage": "lost"})
    asked = started | {"type": "tool.approval", "approval_id": "apr_1", "reason": "It has read text that is not yours."}
    declined = finished | {"ok": False, "result": "Not run: the user declined it."}
    return [*text("Let me see. "), asked, Answered([started, finished], [declined]), *text("That is that.")]


def _held() -> list[Item]:
    return [*text("The beginning of a long answer."), Gate(), *text(" And its end.")]


def _thinking() -> list[Item]:
    thoughts: list[Item] = [
        {"type": "reasoning.delta", "delta": "They want a number. "},
        {"type": "reasoning.delta", "delta": "Two and <b>two</b>…"},
    ]
    return [*thoughts, *text("It is **four**.")]


def _failing_tool() -> list[Item]:
    started, finished = tool("a", "crm.find_account", {"name": "Nobody"}, "There is no account named Nobody.", ok=False)
    return [started, finished, *text("I could not find it.")]


def _reset() -> list[Item]:
    started, finished = tool("a", "crm.find_account", {"name": "X"}, {})
    reset: JSON = {"type": "step.reset", "step": 1}
    return [*text("First. "), started, finished, *text("This is void."), reset, *text("This counts.")]


def _reset_late() -> list[Item]:
    started, finished = tool("a", "crm.find_account", {"name": "X"}, {})
    reset: JSON = {"type": "step.reset", "step": 1}
    return [*text("First. "), started, finished, *text("This is void."), Gate(), reset, *text("This counts.")]


def _failure() -> list[Item]:
    failed: JSON = {
        "type": "turn.failed",
        "code": "upstream_failed",
        "message": "The model broke off.",
        "retryable": True,
    }
    return [*text("Half an "), failed]


def _cut() -> list[Item]:
    return [*text(numbers(0, 200)), Gate(), Cut(), *text(numbers(200, 400))]


def _cut_twice() -> list[Item]:
    return [*text(numbers(0, 50)), Gate(), Cut(), *text(numbers(50, 100)), Cut(), *text(numbers(100, 150))]


def _hostile() -> list[Item]:
    started, finished = tool(
        "a", "crm.<img src=x onerror=window.pwned=31>", {"q": "<img src=x onerror=window.pwned=30>"}, HOSTILE
    )
    return [started, finished, {"type": "title", "title": HOSTILE_TITLE}, *text(HOSTILE)]


def _long() -> list[Item]:
    return text("\n\n".join(f"Paragraph {number} with **some** `text` in it." for number in range(600)), size=400)


def _wide() -> list[Item]:
    columns = " | ".join(f"column{number}" for number in range(14))
    table = f"| {columns} |\n|{' --- |' * 14}\n| {columns} |\n\n"
    return text(f"{table}```\n{'x' * 400}\n```\n\n{'y' * 400}\n\n`{'z' * 300}`", size=50)


_SCRIPTS = {
    "opportunities": _opportunities,
    "hold a tool": _held_tool,
    "hold": _held,
    "ask me first": _asking,
    "tool that fails": _failing_tool,
    "start over late": _reset_late,
    "start over": _reset,
    "break off": _failure,
    "think": _thinking,
    "cut twice": _cut_twice,
    "cut": _cut,
    "attack": _hostile,
    "long": _long,
    "wide": _wide,
}
