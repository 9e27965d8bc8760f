"""The simulation: the production code over an in-memory Kafka and a virtual clock; one seed decides everything."""
