"""The HTTP face of a node: the only place that knows aiohttp.web."""
