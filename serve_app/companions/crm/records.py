"""Accounts and opportunities in SQLite: the queries behind the CRM tools, and the shapes they answer with."""

from __future__ import annotations

import difflib
import sqlite3
import threading
from datetime import date
from typing import Final, Literal

from pydantic import BaseModel, Field

from serve_app.companions.errors import RecordNotFoundError

Stage = Literal["Prospecting", "Qualification", "Proposal", "Negotiation", "Closed Won", "Closed Lost"]
MAX_ROWS: Final = 50

_OPPORTUNITY: Final = (
    "SELECT o.id, o.name, a.name AS account, o.stage, o.amount, o.currency, o.close_date, o.probability"
    " FROM opportunities o JOIN accounts a ON a.id = o.account_id"
)
_ACCOUNT: Final = (
    "SELECT a.id, a.name, a.industry, a.city, a.owner,"
    " (SELECT count(*) FROM opportunities o WHERE o.account_id = a.id AND o.stage NOT LIKE 'Closed%')"
    " AS open_opportunities FROM accounts a"
)


class Account(BaseModel):
    """A customer."""

    id: str = Field(description="Account id, for example ACC-001")
    name: str
    industry: str
    city: str
    owner: str = Field(description="Who looks after the account")
    open_opportunities: int = Field(description="Number of opportunities that are not closed")


class Opportunity(BaseModel):
    """A possible sale."""

    id: str = Field(description="Opportunity id, for example OPP-1001")
    name: str
    account: str
    stage: Stage
    amount: int = Field(description="In whole units of the currency")
    currency: str
    close_date: str = Field(description="Expected or actual closing day, YYYY-MM-DD")
    probability: int = Field(description="Percent")


class AccountList(BaseModel):
    """Accounts that fit a name."""

    accounts: list[Account]


class OpportunityList(BaseModel):
    """Opportunities of one account."""

    account: str
    opportunities: list[Opportunity]
    total: int = Field(description="How many there are, also when the list is cut")


class CrmRecords:
    """All CRM queries on one connection. Safe to call from several threads; a lock serialises them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def accounts_named(self, name: str) -> list[Account]:
        """Accounts whose name is or contains `name` (at most 10, an exact hit alone).

        Raises:
            RecordNotFoundError: None fits; the sentence suggests the nearest name.
        """
        wanted = " ".join(name.split())
        rows = self._rows(f"{_ACCOUNT} WHERE a.id = ? COLLATE NOCASE OR a.name = ?", (wanted, wanted))
        if not rows and wanted:
            rows = self._rows(f"{_ACCOUNT} WHERE instr(lower(a.name), lower(?)) ORDER BY a.name LIMIT 10", (wanted,))
        if not rows:
            raise RecordNotFoundError(f"No account matches '{name}'{self._suggestion(wanted)}")
        return [Account(**dict(row)) for row in rows]

    def opportunities_of(self, account: str, stage: Stage | None) -> OpportunityList:
        """Opportunities of the account with this name or id, the earliest closing day first.

        Raises:
            RecordNotFoundError: No account fits, or several do.
        """
        found = self.accounts_named(account)
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise RecordNotFoundError(f"Several accounts match '{account}': {names}. Which one do you mean?")
        where, values = " WHERE o.account_id = ?", [found[0].id]
        if stage is not None:
            where, values = where + " AND o.stage = ?", [*values, stage]
        rows = self._rows(f"{_OPPORTUNITY}{where} ORDER BY o.close_date, o.id", tuple(values))
        opportunities = [Opportunity(**dict(row)) for row in rows[:MAX_ROWS]]
        return OpportunityList(account=found[0].name, opportunities=opportunities, total=len(rows))

    def opportunity(self, opportunity_id: str) -> Opportunity:
        """One opportunity.

        Raises:
            RecordNotFoundError: No such id.
        """
        rows = self._rows(f"{_OPPORTUNITY} WHERE o.id = ? COLLATE NOCASE", (opportunity_id.strip(),))
        if not rows:
            raise RecordNotFoundError(
                f"There is no opportunity '{opportunity_id}'; ids look like OPP-1001, and list_opportunities gives them."
            )
        return Opportunity(**dict(rows[0]))

    def change_opportunity(
        self, opportunity_id: str, *, stage: Stage | None, amount: int | None, close_date: date | None
    ) -> Opportunity:
        """Set the given fields and return the opportunity as it is then.

        Raises:
            RecordNotFoundError: No such id.
        """
        current = self.opportunity(opportunity_id)
        day = close_date.isoformat() if close_date is not None else None
        with self._lock:
            self._connection.execute(
                "UPDATE opportunities SET stage = coalesce(?, stage), amount = coalesce(?, amount),"
                " close_date = coalesce(?, close_date) WHERE id = ?",
                (stage, amount, day, current.id),
            )
        return self.opportunity(current.id)

    def _suggestion(self, wanted: str) -> str:
        names = {str(row["name"]).lower(): str(row["name"]) for row in self._rows("SELECT name FROM accounts", ())}
        close = difflib.get_close_matches(wanted.lower(), names, n=1, cutoff=0.6)
        return f"; did you mean {names[close[0]]}?" if close else "."

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()
