"""The console: pages for auditors, merchants and operators, rendered here, over the views, the log and the verifier."""
