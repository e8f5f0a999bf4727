"""Files of requests in OpenAI's batch format: their lines, their results, and the jobs of ``/v1/batches``."""
