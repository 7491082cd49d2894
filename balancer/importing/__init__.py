"""Existing front ends (haproxy.cfg, nginx.conf) into our configuration, with a list of what it cannot say."""
