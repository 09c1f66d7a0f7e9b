"""A1111's API: the bodies that its clients send in, its answers out."""

from clipskip.doors.http.a1111.machine import extension_routes
from clipskip.doors.http.a1111.routes import a1111_routes

__all__ = ["a1111_routes", "extension_routes"]
