"""Replay: a recorded program is rewritten, planned once, and run again at the machine's speed."""
