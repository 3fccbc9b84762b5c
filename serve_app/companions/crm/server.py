"""The CRM tools as an MCP server. Failures a user can cause are tool errors with a sentence that helps."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from serve_app.companions.crm.records import (
    AccountList,
    CrmRecords,
    Opportunity,
    OpportunityList,
    Stage,
)
from serve_app.companions.errors import RecordNotFoundError
from serve_app.companions.mcp_hosting import new_mcp_server

READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
# Setting a field to a value twice leaves what setting it once leaves.
CHANGE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

OpportunityId = Annotated[str, Field(description="Opportunity id, for example OPP-1001", min_length=1, max_length=40)]
StageFilter = Annotated[Stage | None, Field(description="Only opportunities in this stage")]


def build_crm_server(records: CrmRecords) -> MCPServer:
    """An MCP server with the four CRM tools over `records`."""
    server = new_mcp_server("crm", "Example customer data: accounts and their sales opportunities.")

    @server.tool(title="Find account", annotations=READ)
    def find_account(
        name: Annotated[str, Field(description="Name of the customer, or a part of it", min_length=1, max_length=100)],
    ) -> AccountList:
        """Find accounts (customers, companies) by name: id, industry, city, owner, number of open opportunities."""
        try:
            return AccountList(accounts=records.accounts_named(name))
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    @server.tool(title="List opportunities", annotations=READ)
    def list_opportunities(
        account: Annotated[
            str, Field(description="Account name, or account id such as ACC-001", min_length=1, max_length=100)
        ],
        stage: StageFilter = None,
    ) -> OpportunityList:
        """List the sales opportunities (deals, pipeline) of an account with stage, amount and close date."""
        try:
            return records.opportunities_of(account, stage)
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    @server.tool(title="Get opportunity", annotations=READ)
    def get_opportunity(id: OpportunityId) -> Opportunity:  # noqa: A002
        """Get one opportunity by its id, with its current status."""
        try:
            return records.opportunity(id)
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    @server.tool(title="Update opportunity", annotations=CHANGE)
    def update_opportunity(
        id: OpportunityId,  # noqa: A002
        stage: Annotated[Stage | None, Field(description="New stage")] = None,
        amount: Annotated[int | None, Field(description="New amount, whole units", ge=0, le=1_000_000_000)] = None,
        close_date: Annotated[date | None, Field(description="New closing day, YYYY-MM-DD")] = None,
    ) -> Opportunity:
        """Change the stage, the amount or the close date of one opportunity."""
        if stage is None and amount is None and close_date is None:
            raise ToolError("Nothing to change: give a stage, an amount or a close_date.")
        try:
            return records.change_opportunity(id, stage=stage, amount=amount, close_date=close_date)
        except RecordNotFoundError as error:
            raise ToolError(str(error)) from None

    return server
