"""What happened: the schema of records, the append-only store of a run, aggregation over seeds."""
