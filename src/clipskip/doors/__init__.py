"""The doors: they parse what users type, call a room and show the result, without logic of their own."""
