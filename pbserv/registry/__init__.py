"""The registry: devices, work, jobs, history and tokens, in one SQL database. Values in and out are frozen records."""
