"""Replay of captures: reading, reassembly, the replay driver. The only room that may import scapy."""

__all__: list[str] = []
