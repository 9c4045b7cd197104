"""Tiny models without code of their own here, which run through stock pipelines."""

from __future__ import annotations


