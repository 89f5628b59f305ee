"""What names say: the field's words, modules and their tensors, and keys that names alone pair."""
