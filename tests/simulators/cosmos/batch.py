"""Transactional batch: up to a hundred operations of one logical partition, all or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.simulators.cosmos.documents import Outcome, Transaction
from tests.simulators.cosmos.refusals import Refusal, bad_request, not_modelled

MOST = 100
_FIELDS = {
    "create": {"resourceBody"},
    "upsert": {"resourceBody", "ifMatch"},
    "replace": {"id", "resourceBody", "ifMatch"},
    "patch": {"id", "resourceBody", "ifMatch"},
    "read": {"id"},
    "delete": {"id", "ifMatch"},
}


@dataclass(slots=True)
class Result:
    """An operation of a batch and what became of it; `substatus` and a charge also where it failed."""

    kind: str
    document_id: str
    document_kind: str | None
    status: int
    charge: float
    outcome: Outcome | None = None
    substatus: int = 0


def check(operations: Any) -> list[dict[str, Any]]:
    """The operations of a request, each one known. Raises a 400 for a batch the service would not begin."""
    if not isinstance(operations, list) or not operations:
        raise bad_request("Batch request has no operations.")
    if len(operations) > MOST:
        raise bad_request(f"Batch request has more operations than what is supported: {len(operations)} of {MOST}.")
    for operation in operations:
        kind = str(operation.get("operationType", "")).lower() if isinstance(operation, dict) else ""
        if kind not in _FIELDS or set(operation) - _FIELDS[kind] - {"operationType"}:
            raise not_modelled(f"the batch operation {str(operation)[:200]}")
        if "id" in _FIELDS[kind] and not isinstance(operation.get("id"), str):
            raise bad_request(f"The batch operation {kind} has no id.")
    return operations


def target(operation: dict[str, Any]) -> tuple[str, str, str | None]:
    """An operation's name, the id it is about and the `kind` its document says, as far as the request tells."""
    kind = str(operation["operationType"]).lower()
    body = operation.get("resourceBody")
    body = body if isinstance(body, dict) and kind != "patch" else {}
    said = body.get("kind")
    return kind, str(operation.get("id", body.get("id", ""))), said if isinstance(said, str) else None


def run(transaction: Transaction, operations: list[dict[str, Any]]) -> list[Result]:
    """Do them in order and commit; at the first that fails commit nothing, and give the others a 424."""
    results: list[Result] = []
    failed: Result | None = None
    for operation in operations:
        kind, document_id, document_kind = target(operation)
        try:
            outcome = _run_one(transaction, kind, operation)
        except Refusal as refusal:
            if refusal.code == "NotModelled":
                raise
            failed = Result(kind, document_id, document_kind, refusal.status, refusal.charge, None, refusal.substatus)
            results.append(failed)
            break
        results.append(Result(kind, document_id, document_kind, outcome.status, outcome.charge, outcome))
    if failed is None:
        transaction.commit()
        return results
    done = [Result(one.kind, one.document_id, one.document_kind, 424, 0.0) for one in results[:-1]]
    rest = [Result(*target(operation), 424, 0.0) for operation in operations[len(results) :]]
    return [*done, failed, *rest]


def _run_one(transaction: Transaction, kind: str, operation: dict[str, Any]) -> Outcome:
    body, if_match = operation.get("resourceBody"), operation.get("ifMatch")
    if kind == "create":
        return transaction.create(body)
    if kind == "upsert":
        return transaction.upsert(body, if_match=if_match)
    document_id = operation["id"]
    if kind == "replace":
        return transaction.replace(document_id, body, if_match=if_match)
    if kind == "patch":
        return transaction.patch(document_id, body, if_match=if_match)
    if kind == "delete":
        return transaction.delete(document_id, if_match=if_match)
    return transaction.read(document_id)


def answer(results: list[Result], *, minimal: bool) -> list[dict[str, Any]]:
    """The body of the response. With `minimal` (Prefer: return=minimal) writes come without their documents."""
    rows = []
    for result in results:
        row: dict[str, Any] = {"statusCode": result.status, "requestCharge": result.charge}
        if result.substatus:
            row["subStatusCode"] = result.substatus
        document = result.outcome.document if result.outcome else None
        if document is not None and result.status < 300:
            row["eTag"] = document.etag
            if not minimal or result.kind == "read":
                row["resourceBody"] = document.body
        rows.append(row)
    return rows
