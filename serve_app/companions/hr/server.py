"""The HR tools as an MCP server. Failures a user can cause are tool errors with a sentence that helps."""

from __future__ import annotations

from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from serve_app.companions.errors import RecordNotFoundError
from serve_app.companions.hr.records import (
    DepartmentList,
    EmployeeList,
    HrRecords,
    LeaveBalance,
)
from serve_app.companions.mcp_hosting import new_mcp_server

READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


def build_hr_server(records: HrRecords) -> MCPServer:
    """An MCP server with the three HR tools over `records`."""
    server = new_mcp_server("hr", "Example staff data: employees, departments and leave balances.")

    @server.tool(title="Find employee", annotations=READ)
    def find_employee(
        name: Annotated[str | None, Field(description="Name of the person, or a part of it", max_length=100)] = None,
        department: Annotated[
            str | None, Field(description="Name of a department, for example Engineering", max_length=100)
        ] = None,
    ) -> EmployeeList:
        """Find employees (people, colleagues, staff) by name or department: who somebody is, who works in a team."""
        if not (name or department):
            raise ToolError("Give the name of a person or of a department.")
        try:
            return records.employees(name, department)
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    @server.tool(title="Get leave balance", annotations=READ)
    def get_leave_balance(
        employee_id: Annotated[str | None, Field(description="Employee id, for example EMP-001", max_length=40)] = None,
        name: Annotated[str | None, Field(description="Full name of the employee", max_length=100)] = None,
    ) -> LeaveBalance:
        """Get the leave balance of an employee: how many days of vacation or holiday are taken, planned and left."""
        employee = employee_id or name
        if not employee:
            raise ToolError("Give the id or the name of an employee.")
        try:
            return records.leave_balance(employee)
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    @server.tool(title="List departments", annotations=READ)
    def list_departments() -> DepartmentList:
        """List all departments with their head and number of employees."""
        return DepartmentList(departments=records.departments())

    return server
