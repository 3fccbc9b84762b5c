"""The `crm` example MCP server: accounts and sales opportunities."""
