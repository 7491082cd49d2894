"""The dashboard: pages made on the server from the admin API's documents, kept live by server-sent events."""
