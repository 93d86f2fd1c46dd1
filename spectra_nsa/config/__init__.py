"""Recipes and presets: typed, closed (an unknown key is refused with the nearest valid one), built once."""
