"""What a kind of run is: training on pairs, or masked-LM pretraining."""
