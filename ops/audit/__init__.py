"""The audit: Daybook's laws checked over the log by a reader of its own, which shares no code with the writers."""
