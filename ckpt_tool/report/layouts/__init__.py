"""Other layouts of what `show` and `diff` report: the tree of modules, two columns."""
