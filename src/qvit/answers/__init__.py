"""What a trained model says of new images, how sure it is, and for which images it should not be asked."""
