"""What becomes of the figures: the model card, its contact sheet, progress on the way."""
