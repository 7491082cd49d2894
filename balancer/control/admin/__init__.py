"""The admin API: HTTP with JSON over a Unix socket, and over TCP with tokens."""
