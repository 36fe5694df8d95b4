"""A small registry that behaves like Docker Hub, and can count, stall, cut, corrupt and lie."""

from . import spoilt
from .answers import Answer, Gate
from .client import HubClient, Reply
from .faults import Rule, at
from .hub import FakeHub
from .ledger import Recorded
from .library import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Image, Index
from .settings import ANONYMOUS

__all__ = [
    "ANONYMOUS",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Answer",
    "FakeHub",
    "Gate",
    "HubClient",
    "Image",
    "Index",
    "Recorded",
    "Reply",
    "Rule",
    "at",
    "spoilt",
]
