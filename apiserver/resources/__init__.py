"""The resources: what each adds to the standard operations of `apiserver.controller`."""
