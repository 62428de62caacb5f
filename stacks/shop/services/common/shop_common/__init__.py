"""What the shop's services share: telemetry, HTTP, Kafka, PostgreSQL, the outbox, and retries."""
