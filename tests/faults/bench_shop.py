"""The shop of the fault matrix, for tests."""

from ops.faults.shop import CODEC, ROOT, SKU, Shop, command_meta, decided_in, exit_code, new_id, now

__all__ = ["CODEC", "ROOT", "SKU", "Shop", "command_meta", "decided_in", "exit_code", "new_id", "now"]
