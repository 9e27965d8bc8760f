"""What if: the commands of a period decided anew, in memory, by other rules."""
