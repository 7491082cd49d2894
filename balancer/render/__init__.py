"""One description, five engines: configuration for other balancers, with a report of what they cannot do."""
