"""The byte path: a level-triggered epoll reactor over raw sockets, standard library only."""
