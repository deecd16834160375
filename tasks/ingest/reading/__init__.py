"""Step 3: from a file, a repository or a data set to documents. `documents_of_file` chooses the reader by the file's name;
`records` defines what every reader yields; `files`, `compression` and `faults` open, unpack and retry.
"""
