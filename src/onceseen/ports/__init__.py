"""What the flow needs from the outside world, one port per file; drivers under `drivers/` fill them in."""
