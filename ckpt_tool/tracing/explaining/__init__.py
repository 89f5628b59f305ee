"""What explains that two networks diverge."""
