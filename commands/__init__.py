"""Decisions: what the business answers to a command, and the one loop that writes it down."""
