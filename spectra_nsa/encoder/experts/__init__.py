"""Mixture of experts: several feed-forward networks in a layer, of which each token or text uses a few."""
