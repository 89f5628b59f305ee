"""What can be said of rules without a plan: rules that never match, tests of names, stray words."""
