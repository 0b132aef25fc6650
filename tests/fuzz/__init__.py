"""Fuzzing: every decoder as a plain function of bytes, a corpus, and what mutates it.

``python -m pytest tests/fuzz`` replays the corpus and a few fixed mutations of it;
``python -m tests.torture --only fuzz`` goes on for as long as told, with atheris where it is
installed (``pip install -e '.[fuzz]'``).
"""
