"""The one-machine stack: Postgres, Valkey and the services as child processes.

The same code, database and broker as in production; only the settings differ.
Everything that is written lies in the home folder.
"""
