"""EGTEA verbs: video-action classification."""
