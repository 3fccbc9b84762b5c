"""The sample data is the same everywhere and survives restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.companions.crm.records import CrmRecords
from serve_app.companions.errors import CompanionError, RecordNotFoundError
from serve_app.companions.hr.records import HrRecords
from serve_app.companions.sample_data import open_crm, open_hr


def test_two_generations_are_equal() -> None:
    assert list(open_crm(None).iterdump()) == list(open_crm(None).iterdump())
    assert list(open_hr(None).iterdump()) == list(open_hr(None).iterdump())


def test_there_is_enough_to_ask_about() -> None:
    crm, hr = open_crm(None), open_hr(None)
    assert crm.execute("SELECT count(*) FROM accounts").fetchone()[0] == 60
    assert 200 <= crm.execute("SELECT count(*) FROM opportunities").fetchone()[0] <= 400
    assert hr.execute("SELECT count(*) FROM employees").fetchone()[0] == 200
    assert hr.execute("SELECT min(entitled_days - taken_days - planned_days) FROM leave_balances").fetchone()[0] >= 0


def test_a_change_is_there_after_a_restart(tmp_path: Path) -> None:
    records = CrmRecords(open_crm(tmp_path))
    records.change_opportunity("OPP-1001", stage="Closed Won", amount=None, close_date=None)
    records.close()
    again = CrmRecords(open_crm(tmp_path))
    assert again.opportunity("opp-1001").stage == "Closed Won"
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["crm.sqlite3"]


def test_an_unusable_folder_is_said_in_a_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CompanionError, match="choose another data folder"):
        open_crm(blocked)


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = open_hr(tmp_path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CompanionError, match="delete the file"):
        open_hr(tmp_path)


def test_names_are_found_by_part_and_suggested_when_misspelt() -> None:
    crm, hr = CrmRecords(open_crm(None)), HrRecords(open_hr(None))
    assert [one.name for one in crm.accounts_named("northwind")] == ["Northwind Traders"]
    with pytest.raises(RecordNotFoundError, match="No account matches 'Contso'; did you mean Contoso"):
        crm.accounts_named("Contso")
    with pytest.raises(RecordNotFoundError, match="Several accounts match 'Coho'"):
        crm.opportunities_of("Coho", None)
    with pytest.raises(RecordNotFoundError, match="did you mean Engineering"):
        hr.employees(None, "Enginering")
    assert hr.leave_balance("maria keller").remaining_days == 7.5
    assert sum(one.employees for one in hr.departments()) == 200


def test_values_are_bound_and_never_part_of_the_statement() -> None:
    crm = CrmRecords(open_crm(None))
    with pytest.raises(RecordNotFoundError):
        crm.accounts_named("' OR 1=1 --")
