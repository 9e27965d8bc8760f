"""Faults on purpose: what stands between processes and their stores while they are being tested."""
