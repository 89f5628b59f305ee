"""Values as notebooks show them: one sentence, and below it what unfolds. Names from a checkpoint
are text there, and a checkpoint of any size is some kilobytes.
"""
