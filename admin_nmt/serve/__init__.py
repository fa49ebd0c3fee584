"""`admin-nmt serve`: a translator behind a web page and a JSON interface.

`batching` joins what concurrent requests want into batches, `messages` is the form of requests and
answers, `rate` counts requests by client, `app` is the ASGI application over them, `server` runs it.
"""
