"""How results read: a value in; text, JSON or HTML out. No file is opened here and nothing is
decided.
"""
