"""Picking and writing elements by index tensors and masks, as functions."""
__all__: list[str] = []
