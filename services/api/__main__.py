"""Start the API: `python -m services.api --host 127.0.0.1 --port 8000`."""

from services.api.app import make_app
from services.web import serve

if __name__ == "__main__":
    serve(make_app, __doc__, service="api", default_port=8000)
