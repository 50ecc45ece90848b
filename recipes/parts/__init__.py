"""What a single recipe draws and keeps books with, so that its script can be read in one go."""
