"""Files of other programs: PDF, EPUB, DOCX, WARC, CSV and JSON. Each reader yields documents, and a Refused or Skipped in place
of what it cannot read or leaves out. `packages` names the libraries that are installed only when asked for.
"""
