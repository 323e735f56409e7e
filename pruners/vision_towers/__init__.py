"""Vision towers: how to read them while they run, by the way in which they lay out their input."""

from __future__ import annotations

from pruners.vision_towers.base import TowerCall, TowerOutputs, VisionTower

__all__ = ["TowerCall", "TowerOutputs", "VisionTower"]
