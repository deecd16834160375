"""What a person sees of the data stage: `figures` counts what is in finished shards, `samples` looks into rows, `tables` and
`plot` show both, and `prepared` sums up a stage that has just ended."""
