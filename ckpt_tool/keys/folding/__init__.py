"""Many keys as few patterns."""
