"""The ways into a graph, as blocking clients: each opens, asks, checks and times one answer at a time. None knows of Locust."""
