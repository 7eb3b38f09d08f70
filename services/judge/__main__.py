"""Start the judge service: `python -m services.judge --host 127.0.0.1 --port 8002`."""

from services.judge.app import make_app
from services.web import serve

if __name__ == "__main__":
    serve(make_app, __doc__, service="judge", default_port=8002)
