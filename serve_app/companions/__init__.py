"""What a development graph brings along: a simulated model provider and two example MCP servers.

They are real servers on loopback sockets, so the code that talks to a provider or a tool server is always the code
that runs in production. Nothing in this package imports the rest of the program, and nothing imports Ray: any
process can host it (`serve_app.companions.server.CompanionServer`) or run it alone (`python -m serve_app.companions`).
"""
