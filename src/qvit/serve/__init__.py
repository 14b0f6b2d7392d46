"""A page on which a trained model is tried: an image is dropped, what is said of it is shown, nothing is kept."""
