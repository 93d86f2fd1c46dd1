"""Distillation of a model into a smaller one."""
