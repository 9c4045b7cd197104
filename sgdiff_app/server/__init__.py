"""The HTTP server: an OpenAI-compatible API over the job queue."""
