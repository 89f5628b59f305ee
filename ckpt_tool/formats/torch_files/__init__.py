"""What `torch.save` wrote, from 0.1.9 on: the containers, the state dicts in them, where the
tensors' bytes lie.
"""
