"""Requests and responses of the server: bodies, queues, authentication, streams and errors."""
