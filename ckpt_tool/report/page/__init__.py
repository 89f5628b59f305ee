"""The report page: a value as one self-contained HTML file. It is built from the values that the
text and the JSON are made of; it opens nothing, decides nothing, and its reader asks no server.
"""
