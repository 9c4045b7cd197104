"""Jobs: every image, edit and video that a long-lived process draws, queued, kept and told about."""

from engine.jobs.job import Job, Kind, Status
from engine.jobs.queue import JobQueue
from engine.jobs.store import JobStore

__all__ = ["Job", "JobQueue", "JobStore", "Kind", "Status"]
