"""A1111's API: the bodies that its clients send in, its answers out."""

from clipskip.doors.http.a1111.machine import outer_routes
from clipskip.doors.http.a1111.routes import a1111_routes

__all__ = ["a1111_routes", "outer_routes"]
