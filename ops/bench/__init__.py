"""Daybook and a peer, measured in the same rounds on the same machine."""
