"""Zip and tar archives, read strictly: what two readers could understand differently is refused."""
