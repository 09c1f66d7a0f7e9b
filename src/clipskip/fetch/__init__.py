"""A link, an AIR or a hash in; the model's file, verified and in the folder of its kind, out."""

from clipskip.fetch.getting import Fetched, fetch

__all__ = ["Fetched", "fetch"]
