"""Files as people have them → their text, read in a process of its own with limits.

`kinds` tells what the bytes are, `converter` runs the child, `__main__` is the child; the other modules are the
child's and read one format each: `read(content)` gives text, or raises `Refused`.
"""
