"""The code of each model family, one file each."""
