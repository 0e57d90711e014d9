"""Keys of the demo's proxy, without the database that LiteLLM keeps teams in: `sk-demo-acme` belongs to team `acme`.

LiteLLM writes the team of a key to `metadata.user_api_key_team_id`, whether it comes from here, from its database
(virtual keys) or from a JWT; Tidegate takes it as the tenant.
"""

from __future__ import annotations

from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.utils import hash_token

PREFIX = "sk-demo-"


async def check(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Who makes a call; a key of another form is answered with 401."""
    team = api_key.removeprefix(PREFIX)
    if team == api_key or not team.isidentifier():
        message = f"a key of the demo must be {PREFIX}TEAM, TEAM of letters, digits and '_'"
        raise ProxyException(message=message, type="auth_error", param="key", code=401)
    return UserAPIKeyAuth(api_key=hash_token(api_key), team_id=team, user_id=f"{team}-app")
