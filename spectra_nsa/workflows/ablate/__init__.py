"""Ablation: a recipe with one part changed at a time, over several seeds."""
