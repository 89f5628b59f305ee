"""Rule files into rule sets and back: YAML as a strict subset, one file for each kind of line."""
