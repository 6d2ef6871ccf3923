"""Truths themselves: do they come, and in time?"""
