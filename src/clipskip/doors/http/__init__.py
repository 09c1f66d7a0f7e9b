"""Requests of web pages and programs in; JSON, pictures and events out. The rooms below do the work."""

from clipskip.doors.http.access import Access
from clipskip.doors.http.app import build_app

__all__ = ["Access", "build_app"]
