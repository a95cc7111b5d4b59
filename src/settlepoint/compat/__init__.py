"""Adapters: settlepoint behind the signatures that other libraries made familiar."""
