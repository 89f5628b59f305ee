"""Which modules of two sides belong together: the evidence for a pair, the pairs that are taken,
how sure they are.
"""
