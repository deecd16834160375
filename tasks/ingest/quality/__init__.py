"""What is done to each document after it is read: `filters.finished` checks its size, finds its language, replaces personal data
and leaves poor text out, each as the parameters ask. `measures` and `personal_data` do the work.
"""
