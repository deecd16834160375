"""Every Python that a test starts loads this first: it collects garbage less often.

Most of what these processes do is import torch, transformers, Ray and Prefect: millions of objects that stay. Looking through them
again and again took a sixth of it.
"""

import gc

gc.set_threshold(50_000, 10, 10)
