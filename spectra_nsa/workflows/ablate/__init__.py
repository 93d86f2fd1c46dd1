"""Ablation: a recipe with one part switched at a time, over several seeds."""
