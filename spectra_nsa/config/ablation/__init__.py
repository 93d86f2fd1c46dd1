"""What an ablation switches in a recipe, part by part."""
