"""``GET /v1/models``, answered from the routes an app may use.

Pure; owns the shape of the listing.
"""

from __future__ import annotations

import orjson

from proxy.flow.catalog import Snapshot


def list_models(snapshot: Snapshot, app: str) -> bytes | None:
    """Return the model list of an app, or None when only its provider can tell.

    Names that routes spell out are listed. When every route takes models by wildcard there is nothing to
    list, and the provider's own answer is the honest one.
    """
    known = snapshot.policies.models(app)
    if not known.names and known.has_wildcard:
        return None
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "readygate"} for name in known.names]
    return orjson.dumps({"object": "list", "data": rows})
