"""DeepSpeed's ZeRO checkpoints: flat partitions of all ranks."""
