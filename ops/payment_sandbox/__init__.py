"""A payment provider to practise against: a process of its own that plays somebody else's system."""
