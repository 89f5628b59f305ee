"""Folders of torch.distributed.checkpoint: `.metadata` says which tensors there are and where their
parts lie in the `.distcp` files.
"""
