"""Runs Azure Functions apps written in Python on Dapr, without the .NET host."""

__version__ = "0.1.0"
