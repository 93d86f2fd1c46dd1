"""Arrays in, numbers out: ranking, similarity, detection, intervals, the health of embeddings. No models here."""
