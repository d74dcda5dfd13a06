"""Items as independent zstd frames: how a stream is cut, what the index says of it, how it is written and verified."""
