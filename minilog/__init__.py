"""An event log you import: SQLite's deployment, Kafka's semantics.

    from minilog import Broker, Consumer, Producer

    with Broker("events") as broker:
        broker.create_topic("orders", partitions=4, exist_ok=True)
        Producer(broker).send("orders", b"hello", key=b"customer-1")
        for record in Consumer(broker, "orders").drain():
            print(record.offset, record.value)

This is the shop window: the public names, and nothing else.
"""

from minilog.broker import Broker
from minilog.config import TopicConfig
from minilog.consumer import Consumer
from minilog.errors import (
    ClosedError,
    CommitError,
    ConfigError,
    CorruptionError,
    FencedError,
    ForkedError,
    GroupError,
    InvalidPartitionsError,
    InvalidRecordError,
    InvalidTopicError,
    LockedError,
    MinilogError,
    NoOffsetError,
    NotAssignedError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    ReadOnlyError,
    RebalanceError,
    RecordTooLargeError,
    SequenceGapError,
    StorageError,
    SyncFailedError,
    TopicExistsError,
    TransactionError,
    UnknownMemberError,
    UnknownPartitionError,
    UnknownTopicError,
    UnsupportedFormatError,
)
from minilog.groups import Group
from minilog.partition import Partition
from minilog.producer import Producer
from minilog.records import Record, RecordMetadata, Records, TopicPartition
from minilog.replay import replay, replay_async
from minilog.reports import RecoveryReport, VerifyReport
from minilog.topic import Topic
from minilog.verify import verify

__version__ = "0.2.1"

__all__ = [
    "Broker",
    "ClosedError",
    "CommitError",
    "ConfigError",
    "Consumer",
    "CorruptionError",
    "FencedError",
    "ForkedError",
    "Group",
    "GroupError",
    "InvalidPartitionsError",
    "InvalidRecordError",
    "InvalidTopicError",
    "LockedError",
    "MinilogError",
    "NoOffsetError",
    "NotAssignedError",
    "OffsetConflictError",
    "OffsetOutOfRangeError",
    "Partition",
    "Producer",
    "ReadOnlyError",
    "RebalanceError",
    "Record",
    "RecordMetadata",
    "RecordTooLargeError",
    "Records",
    "RecoveryReport",
    "SequenceGapError",
    "StorageError",
    "SyncFailedError",
    "Topic",
    "TopicConfig",
    "TopicExistsError",
    "TopicPartition",
    "TransactionError",
    "UnknownMemberError",
    "UnknownPartitionError",
    "UnknownTopicError",
    "UnsupportedFormatError",
    "VerifyReport",
    "replay",
    "replay_async",
    "verify",
]
