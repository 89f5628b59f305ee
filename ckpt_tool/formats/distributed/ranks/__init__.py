"""State dicts of FSDP and tensor parallelism, of which each rank has a part."""
