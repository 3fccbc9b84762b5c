"""Employees, departments and leave in SQLite: the queries behind the HR tools, and the shapes they answer with."""

from __future__ import annotations

import difflib
import sqlite3
import threading
from typing import Final

from pydantic import BaseModel, Field

from serve_app.companions.errors import RecordNotFoundError

MAX_ROWS: Final = 50
_EMPLOYEE: Final = "SELECT id, name, department, title, email, city, manager, hired_on FROM employees"


class Employee(BaseModel):
    """A colleague."""

    id: str = Field(description="Employee id, for example EMP-001")
    name: str
    department: str
    title: str
    email: str
    city: str
    manager: str | None = Field(description="Name of the manager; null for heads of department")
    hired_on: str = Field(description="YYYY-MM-DD")


class EmployeeList(BaseModel):
    """Employees that fit a name or a department."""

    employees: list[Employee]
    total: int = Field(description="How many there are, also when the list is cut")


class LeaveBalance(BaseModel):
    """Paid leave of one employee in one year, in days (halves are possible)."""

    employee_id: str
    employee: str
    year: int
    entitled_days: float
    taken_days: float
    planned_days: float = Field(description="Approved, not taken yet")
    remaining_days: float = Field(description="Entitled less taken and planned")


class Department(BaseModel):
    """A department."""

    name: str
    head: str
    employees: int


class DepartmentList(BaseModel):
    """All departments."""

    departments: list[Department]


class HrRecords:
    """All HR queries on one connection. Safe to call from several threads; a lock serialises them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def employees(self, name: str | None, department: str | None) -> EmployeeList:
        """Employees whose name contains `name` and who work in `department`; at least one must be given.

        Raises:
            RecordNotFoundError: None fits; the sentence suggests what is near.
        """
        wanted, team = " ".join((name or "").split()), " ".join((department or "").split())
        if team and not self._rows("SELECT 1 FROM employees WHERE department = ? LIMIT 1", (team,)):
            known = [str(row["department"]) for row in self._rows("SELECT DISTINCT department FROM employees", ())]
            hint = _nearest(team, known)
            raise RecordNotFoundError(
                f"There is no department '{department}'" + (hint or f"; there are {', '.join(sorted(known))}.")
            )
        rows = self._rows(
            f"{_EMPLOYEE} WHERE (? = '' OR instr(lower(name), lower(?))) AND (? = '' OR department = ?) ORDER BY name",
            (wanted, wanted, team, team),
        )
        if not rows:
            names = [str(row["name"]) for row in self._rows("SELECT name FROM employees", ())]
            raise RecordNotFoundError(f"No employee matches '{name}'" + (_nearest(wanted, names) or "."))
        exact = [row for row in rows if str(row["name"]).lower() == wanted.lower()]
        chosen = exact or rows
        return EmployeeList(employees=[Employee(**dict(row)) for row in chosen[:MAX_ROWS]], total=len(chosen))

    def leave_balance(self, employee: str) -> LeaveBalance:
        """Leave of the employee with this id or name.

        Raises:
            RecordNotFoundError: Nobody fits, or several do.
        """
        rows = self._rows("SELECT id, name FROM employees WHERE id = ? COLLATE NOCASE", (employee.strip(),))
        if rows:
            employee_id, name = str(rows[0]["id"]), str(rows[0]["name"])
        else:
            found = self.employees(employee, None)
            if found.total > 1:
                names = ", ".join(f"{one.name} ({one.id})" for one in found.employees[:8])
                raise RecordNotFoundError(f"Several employees match '{employee}': {names}. Which one do you mean?")
            employee_id, name = found.employees[0].id, found.employees[0].name
        row = self._rows(
            "SELECT employee_id, year, entitled_days, taken_days, planned_days,"
            " entitled_days - taken_days - planned_days AS remaining_days FROM leave_balances WHERE employee_id = ?",
            (employee_id,),
        )[0]
        return LeaveBalance(employee=name, **dict(row))

    def departments(self) -> list[Department]:
        """All departments with their head and size, by name."""
        rows = self._rows(
            "SELECT department AS name, max(CASE WHEN manager IS NULL THEN name END) AS head, count(*) AS employees"
            " FROM employees GROUP BY department ORDER BY department",
            (),
        )
        return [Department(**dict(row)) for row in rows]

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()


def _nearest(wanted: str, names: list[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(wanted.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""
