"""Learned sparse encoders: the model, its vocabulary head, and the query side that runs without torch.

Legend: B texts, T tokens of the longest of them, D width of the states, V vocabulary, N texts of a corpus.
"""
