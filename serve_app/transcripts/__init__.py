"""Recorded conversations, whatever wrote them down."""
