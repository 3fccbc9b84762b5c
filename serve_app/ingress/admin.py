"""``/api/admin``: all of its routes, whose callers have to be administrators."""

from __future__ import annotations

from serve_app.ingress import admin_keys, admin_provisioning, admin_stages, admin_tenants, admin_usage, admin_users

# Side by side: a router within a router would lose the first part of its routes' names in log and metrics.
routers = (
    *(admin_tenants.router, admin_users.router, admin_provisioning.router),
    *(admin_keys.router, admin_usage.router, admin_stages.router),
)
