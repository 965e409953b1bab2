"""Files that lie elsewhere: fetched by `fsspec` ahead of the decoding, into a folder of bounded size.

Nothing here is loaded for files of this machine.
"""
