"""What is left when modules are matched: other layouts, parts and wholes, sequences, widths."""
