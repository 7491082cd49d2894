"""The parent process: holds what must outlive every other process, starts the others and replaces them.

It knows no HTTP and no configuration. Everything it does is small and bounded, so that it does not die:

* `rules` decides (pure): back-off, heartbeats, who gets which socket;
* `loop` waits: descriptors, timers, signals;
* `sockets` holds the listening sockets, `children` starts processes, `link` talks to a worker;
* `crew` keeps the workers, `keeper` the control process, `parent` puts them together;
* `adoption` takes over the workers of a parent that died, `reexec` replaces the program under its own pid.
"""
