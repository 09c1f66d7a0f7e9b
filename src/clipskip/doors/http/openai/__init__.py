"""OpenAI's images and models: its clients' bodies in, its answers out."""

from clipskip.doors.http.openai.routes import openai_routes

__all__ = ["openai_routes"]
