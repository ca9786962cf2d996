"""Reads the files that W&B writes offline, which hold its records in the form of a LevelDB log."""

import json
import struct

from wandb.proto import wandb_internal_pb2

_BLOCK, _FILE_HEADER, _HEADER = 32_768, 7, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def _blobs(content):
    """Each record's bytes; one that does not fit a block goes on in the next."""
    position, parts = _FILE_HEADER, []
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + _HEADER])
        if kind == 0:
            return
        parts = [] if kind in (_FULL, _FIRST) else parts
        parts.append(content[position + _HEADER : position + _HEADER + length])
        position += _HEADER + length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)


def _named(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    """What W&B would send of a run: its id, the name that it shows, its project, its configuration and its history."""

    def __init__(self, folder):
        (file,) = folder.glob("*.wandb")
        self.config, self.history = {}, []
        for blob in _blobs(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(blob)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.id, self.name, self.project = record.run.run_id, record.run.display_name, record.run.project
                self.config |= _named(record.run.config.update)
            elif kind == "config":
                self.config |= _named(record.config.update)
            elif kind == "history":
                self.history.append(_named(record.history.item))

    def points(self, name):
        """The steps and values of a curve."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]
