"""Blinded ratings of images by people and model readers: protocols, studies on disk, agreement and reports."""
