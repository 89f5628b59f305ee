"""Formats that are a header and then the tensors' bytes: safetensors, GGUF, numpy's."""
