"""The floor of the fault matrix, for tests."""

from ops.faults.floor import Floor, Role

__all__ = ["Floor", "Role"]
