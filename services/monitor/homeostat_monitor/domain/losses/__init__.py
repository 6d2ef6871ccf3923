"""Losses of truths, one by one in the order in which they became known: has the loss risen?"""
