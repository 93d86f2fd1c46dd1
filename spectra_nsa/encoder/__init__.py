"""The backbone in plain torch: attention, feed-forward, norms and positions are built first and passed into one block.

Shapes in this folder: B texts, T padded length, D hidden size, H heads, K = D / H. `x_BTD` is a tensor of that shape.
"""
