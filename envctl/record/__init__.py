"""A run's record: an append-only file of events that one process writes and everything that judges reads.

`docs/record.md` describes the format.  Reading takes one pass over the file and keeps an index: bodies of requests, answers
and sources stay in the file and are read when somebody asks for them, so that a million events fit into a few hundred MB.
"""

from envctl.record.expression import pick
from envctl.record.manifest import RunManifest, new_run
from envctl.record.reader import EVENTS, Record
from envctl.record.values import FaultWindow, Observed, Operation
from envctl.record.writer import RecordWriter, encode, publish

__all__ = ["EVENTS", "FaultWindow", "Observed", "Operation", "Record", "RecordWriter", "RunManifest", "encode", "new_run", "pick", "publish"]
