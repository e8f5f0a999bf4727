"""Images and audio for all engines: files, bytes, arrays and objects of other packages.

:mod:`cyllama.media.image` converts images to pixels, :mod:`cyllama.media.audio` converts audio to samples.
"""
