"""The fields of each route: the check of requests, the documentation and the OpenAPI description come from them."""
