"""Evidence: a sealer signs what the log said, a witness watches the sealer, and a verifier needs neither of them."""
