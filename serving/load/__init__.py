"""A load generator for any server with OpenAI's interface: requests in, times and tokens out.

prompts.py ─▶ schedule.py (when) ─▶ target.py (HTTP) ─▶ samples ─▶ statistics.py ─▶ plot.py
"""
