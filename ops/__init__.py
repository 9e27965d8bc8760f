"""What runs Daybook: the command line, the local stack, the supervisor and the proofs."""
