"""`python -m ops.payment_sandbox` serves the sandbox in the foreground."""

from ops.payment_sandbox.server import main

main()
