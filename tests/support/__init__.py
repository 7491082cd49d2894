"""Small real servers, clients and stand-ins that tests start."""
