"""Copies in another order: repeat, flip, roll, triangles."""
__all__: list[str] = []
