"""Evaluation: systems measured on tasks."""
