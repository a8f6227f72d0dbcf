"""The ladder's networks in timm, which knows them once this is imported: `import roadmap.registry`."""

from roadmap.export.timm_registry import register_ladder

__all__ = ["register_ladder"]
