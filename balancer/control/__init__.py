"""The control process (asyncio): prober, intents, admin API, events, designation."""
