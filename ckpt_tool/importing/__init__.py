"""Conversions that other libraries keep as tables, as rule files."""
