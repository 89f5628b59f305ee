"""Checkpoints that lie elsewhere: on web servers, on the hub, in what fsspec opens."""
