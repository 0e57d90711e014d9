"""Everything dies, in an order that a seed gives; then a checker that knows Kafka and JSON only says what was lost."""
