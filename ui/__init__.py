"""The page: a Gradio interface over the job queue of one process."""
