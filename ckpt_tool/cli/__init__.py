"""What a user types: one file per command. A command parses, makes one library call, prints one
value, exits 0, 1 or 2.
"""
