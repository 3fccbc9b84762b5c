"""Access: from a proven identity to a user of a tenant, and the administration of both.

``port`` says what others ask, ``records`` and ``directory`` keep what is known, ``resolver`` decides who somebody is,
``terms`` what they may have. ``policy`` says who may change what; ``tenants``, ``users``, ``provisioning`` and
``provider_keys`` change it, and ``audit`` writes down that they did.
"""
