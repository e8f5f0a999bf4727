"""Pictures and sound on their way in, for every engine: files, bytes, arrays and what other packages hold them in.

:mod:`cyllama.media.image` makes pixels of any picture, :mod:`cyllama.media.audio` samples of any sound.
"""
