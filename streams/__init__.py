"""The moving parts: workers and agents that carry records between Kafka, the stores and the payment provider."""
