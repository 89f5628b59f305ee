"""The accounting: every key of both sides once, every shape and dtype right, every rule of use."""
