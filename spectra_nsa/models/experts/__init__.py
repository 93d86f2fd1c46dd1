"""Models with experts: how they come from dense ones and become dense again."""
