"""Sample data for the example tool servers: the same few hundred rows on every machine, from one seed.

The first accounts and their opportunities are written by hand, because examples in the documentation ask about them;
everything after them is drawn from word lists with a fixed seed. Dates lie around `REFERENCE_DATE` and do not move
with the clock, so that an answer can be compared between two runs.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from serve_app.companions.errors import CompanionError

SEED: Final = 20261101
SCHEMA_VERSION: Final = 1
REFERENCE_DATE: Final = date(2026, 11, 1)
STAGES: Final = ("Prospecting", "Qualification", "Proposal", "Negotiation", "Closed Won", "Closed Lost")
DEPARTMENTS: Final = (
    "Engineering", "Sales", "Marketing", "Finance", "Human Resources", "Customer Support", "Operations", "Legal",
)  # fmt: skip

_NAMED_ACCOUNTS: Final = (
    "Contoso", "Fabrikam", "Northwind Traders", "Adventure Works", "Tailspin Toys", "Wingtip Toys", "Woodgrove Bank",
    "Litware", "Proseware", "Coho Winery", "Coho Vineyard", "Fourth Coffee", "Lucerne Publishing", "Alpine Ski House",
    "Humongous Insurance", "Trey Research", "Southridge Video", "Graphic Design Institute", "Relecloud", "VanArsdel",
)  # fmt: skip
_ACCOUNT_FIRST: Final = ("Juniper", "Harbour", "Granite", "Silverleaf", "Bluebird", "Oakfield", "Redstone", "Maple")
_ACCOUNT_SECOND: Final = ("Foods", "Logistics", "Textiles", "Energy", "Instruments", "Pharmacy", "Studios", "Farms")
_INDUSTRIES: Final = ("Manufacturing", "Retail", "Finance", "Healthcare", "Education", "Logistics", "Media", "Energy")
_CITIES: Final = ("Zurich", "Berlin", "Vienna", "Paris", "Madrid", "London", "Oslo", "Milan", "Lisbon", "Dublin")
_PROJECTS: Final = (
    "Cloud migration", "Analytics platform", "Support contract", "Licence renewal", "Training programme",
    "Data warehouse", "Mobile app", "Security audit", "Network upgrade", "Warehouse automation",
)  # fmt: skip
_OWNERS: Final = ("Ana Duarte", "Jonas Weber", "Priya Nair", "Luca Moretti", "Sofia Lind", "Tom Becker")
_HAND_WRITTEN: Final[dict[str, tuple[tuple[str, str, int, str, int], ...]]] = {
    "Contoso": (
        ("Cloud migration", "Negotiation", 240_000, "2026-12-15", 70),
        ("Analytics platform", "Proposal", 125_000, "2027-01-31", 45),
        ("Support contract", "Qualification", 48_000, "2027-02-28", 25),
        ("Licence renewal", "Closed Won", 86_000, "2026-09-30", 100),
    ),
    "Fabrikam": (
        ("Warehouse automation", "Proposal", 310_000, "2027-03-15", 50),
        ("Mobile app", "Prospecting", 72_000, "2027-04-30", 10),
        ("Security audit", "Closed Lost", 18_500, "2026-08-20", 0),
    ),
    "Northwind Traders": (
        ("Data warehouse", "Negotiation", 198_000, "2026-11-30", 80),
        ("Training programme", "Qualification", 24_000, "2027-01-15", 30),
    ),
}
_FIRST_NAMES: Final = (
    "Maria", "Jonas", "Aisha", "Luca", "Sofia", "Tom", "Priya", "Elena", "David", "Noor",
    "Felix", "Hanna", "Omar", "Clara", "Marek", "Ines", "Paul", "Yuki", "Nina", "Samuel",
)  # fmt: skip
_LAST_NAMES: Final = (
    "Keller", "Weber", "Rossi", "Novak", "Silva", "Hansen", "Meier", "Okafor", "Larsen", "Dubois",
    "Schmid", "Kowalski", "Ferrari", "Nguyen", "Brandt", "Costa", "Lindberg", "Haddad", "Tanaka", "Moser",
)  # fmt: skip
_TITLES: Final = ("Specialist", "Senior Specialist", "Analyst", "Team Lead", "Coordinator")

_CRM_SCHEMA: Final = """
CREATE TABLE accounts (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, industry TEXT NOT NULL, city TEXT NOT NULL,
  owner TEXT NOT NULL
);
CREATE TABLE opportunities (
  id TEXT PRIMARY KEY, account_id TEXT NOT NULL REFERENCES accounts(id), name TEXT NOT NULL, stage TEXT NOT NULL,
  amount INTEGER NOT NULL, currency TEXT NOT NULL, close_date TEXT NOT NULL, probability INTEGER NOT NULL
);
CREATE INDEX opportunities_by_account ON opportunities(account_id);
"""
_HR_SCHEMA: Final = """
CREATE TABLE employees (
  id TEXT PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, department TEXT NOT NULL COLLATE NOCASE, title TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE, city TEXT NOT NULL, manager TEXT, hired_on TEXT NOT NULL
);
CREATE TABLE leave_balances (
  employee_id TEXT PRIMARY KEY REFERENCES employees(id), year INTEGER NOT NULL, entitled_days REAL NOT NULL,
  taken_days REAL NOT NULL, planned_days REAL NOT NULL
);
CREATE INDEX employees_by_department ON employees(department);
"""


def open_crm(data_dir: Path | None) -> sqlite3.Connection:
    """Open the CRM sample database, generating it on first use.

    Args:
        data_dir: Folder for `crm.sqlite3`; None keeps the data in memory.

    Raises:
        CompanionError: The folder or file cannot be used.
    """
    return _open(data_dir, "crm.sqlite3", _fill_crm)


def open_hr(data_dir: Path | None) -> sqlite3.Connection:
    """Open the HR sample database, generating it on first use (see `open_crm`)."""
    return _open(data_dir, "hr.sqlite3", _fill_hr)


def _open(data_dir: Path | None, file_name: str, fill: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    if data_dir is None:
        connection = _connect(":memory:")
        fill(connection)
        return connection
    path = data_dir / file_name
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _generate(path, fill)
        connection = _connect(str(path))
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except (OSError, sqlite3.Error) as error:
        raise CompanionError(
            f"The sample data in {path} cannot be used ({error}); choose another data folder (--data-dir)."
        ) from error
    if version != SCHEMA_VERSION:
        connection.close()
        raise CompanionError(f"{path} was written by another version of the sample data; delete the file to renew it.")
    return connection


def _connect(target: str) -> sqlite3.Connection:
    # Tools run on worker threads; the records objects serialise their access with a lock.
    connection = sqlite3.connect(target, check_same_thread=False, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _generate(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Write the file under another name first, so that a crash never leaves half a database."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    os.close(handle)
    try:
        connection = _connect(temporary)
        try:
            fill(connection)
        finally:
            connection.close()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fill_crm(connection: sqlite3.Connection) -> None:
    chance = random.Random(SEED)
    drawn = [f"{first} {second}" for first in _ACCOUNT_FIRST for second in _ACCOUNT_SECOND]
    names = [*_NAMED_ACCOUNTS, *chance.sample(drawn, 40)]
    accounts: list[tuple[object, ...]] = []
    opportunities: list[tuple[object, ...]] = []
    for index, name in enumerate(names, start=1):
        account_id = f"ACC-{index:03d}"
        owner = chance.choice(_OWNERS)
        accounts.append((account_id, name, chance.choice(_INDUSTRIES), chance.choice(_CITIES), owner))
        for project, stage, amount, close_date, probability in _HAND_WRITTEN.get(name) or _draw_deals(chance):
            number = f"OPP-{1001 + len(opportunities)}"
            opportunities.append((number, account_id, project, stage, amount, "EUR", close_date, probability))
    _store(
        connection,
        _CRM_SCHEMA,
        {"accounts": accounts, "opportunities": opportunities},
    )


def _draw_deals(chance: random.Random) -> list[tuple[str, str, int, str, int]]:
    usual = {"Prospecting": 10, "Qualification": 25, "Proposal": 50, "Negotiation": 75, "Closed Won": 100}
    deals = []
    for project in chance.sample(_PROJECTS, chance.randint(3, 7)):
        stage = chance.choice(STAGES)
        # A closed deal has its date behind it, an open one ahead.
        days = -chance.randint(5, 200) if stage.startswith("Closed") else chance.randint(10, 240)
        close_date = (REFERENCE_DATE + timedelta(days=days)).isoformat()
        deals.append((project, stage, chance.randint(8, 400) * 1000, close_date, usual.get(stage, 0)))
    return deals


def _fill_hr(connection: sqlite3.Connection) -> None:
    chance = random.Random(SEED + 1)
    others = [(f, last) for f in _FIRST_NAMES for last in _LAST_NAMES if (f, last) != ("Maria", "Keller")]
    people = [("Maria", "Keller"), *chance.sample(others, 199)]
    employees: list[tuple[object, ...]] = []
    balances: list[tuple[object, ...]] = []
    heads: dict[str, str] = {}
    for index, (first, last) in enumerate(people, start=1):
        department = DEPARTMENTS[(index - 1) % len(DEPARTMENTS)]
        name, employee_id = f"{first} {last}", f"EMP-{index:03d}"
        title = f"Head of {department}" if department not in heads else f"{department} {chance.choice(_TITLES)}"
        manager = heads.get(department)
        heads.setdefault(department, name)
        hired_on = (REFERENCE_DATE - timedelta(days=chance.randint(60, 4000))).isoformat()
        email = f"{first}.{last}@parley.example".lower()
        employees.append((employee_id, name, department, title, email, chance.choice(_CITIES), manager, hired_on))
        entitled = chance.choice((25.0, 25.0, 27.0, 30.0))
        taken = chance.randint(0, 36) / 2
        planned = min(chance.choice((0.0, 0.0, 2.0, 5.0)), entitled - taken)
        balances.append((employee_id, REFERENCE_DATE.year, entitled, taken, planned))
    # The README's example asks about her, so her figures are fixed.
    balances[0] = ("EMP-001", REFERENCE_DATE.year, 27.0, 14.5, 5.0)
    _store(connection, _HR_SCHEMA, {"employees": employees, "leave_balances": balances})


def _store(connection: sqlite3.Connection, schema: str, tables: dict[str, list[tuple[object, ...]]]) -> None:
    connection.executescript(schema)
    connection.execute("BEGIN")
    for table, rows in tables.items():
        # Table names come from this module only; every value is bound.
        marks = ",".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
