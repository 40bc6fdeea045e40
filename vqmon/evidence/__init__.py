"""What is kept to show what a segment says: pictures, and the last packets as they arrived.

Neither ever stops the watching: what cannot be written is missed, and that is said once.
"""

from vqmon.evidence.packets import PacketRing
from vqmon.evidence.pictures import EvidenceKeeper, folder_name

__all__ = ["EvidenceKeeper", "PacketRing", "folder_name"]
