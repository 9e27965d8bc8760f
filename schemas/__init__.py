"""The language of Daybook: every word of the domain, and how it is written on the wire."""
