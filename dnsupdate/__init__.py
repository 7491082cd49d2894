"""DNS records from templates, sent by RFC 2136 from any number of nodes, nothing lost or reordered."""
