"""Audits: ordinary runs with canaries among the clients, and what these prove of the privacy that was promised."""
