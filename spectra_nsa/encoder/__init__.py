"""The backbone in plain torch: built parts (attention, feed-forward, norm, positions) injected into one block.

Shapes in this folder: B texts, T padded length, D hidden size, H heads, K = D / H. `x_BTD` is a tensor of that shape.
"""
