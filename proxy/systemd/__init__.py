"""What systemd and a service tell each other, by its documented protocols and without its library."""
