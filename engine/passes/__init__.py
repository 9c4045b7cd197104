"""What is done to loaded components, in order; none of it knows a model family."""
