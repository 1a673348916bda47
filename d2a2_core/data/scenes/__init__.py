"""Scenes made here: drawn shapes, furnished rooms, clutter; rendering, and the folder they are kept in."""
