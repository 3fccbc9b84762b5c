"""The `hr` example MCP server: employees, departments and leave balances."""
