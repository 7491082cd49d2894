"""DNS records of nodes: templates in, RFC 2136 updates out, from any number of processes, nothing lost or reordered."""
