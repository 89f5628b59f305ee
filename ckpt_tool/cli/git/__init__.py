"""Commands for git, hooks and CI."""
