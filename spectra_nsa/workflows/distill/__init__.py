"""Distillation: a smaller student of a model, trained or static, and how it compares with its teacher."""
