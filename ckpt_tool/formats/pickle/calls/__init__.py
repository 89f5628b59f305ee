"""The calls that pickles of checkpoints make, described as what each would make; none is made."""
