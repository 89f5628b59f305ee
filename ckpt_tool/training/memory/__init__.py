"""Values into the memory of a live module: read into it, or computed."""
