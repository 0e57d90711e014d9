"""Whether a verdict is its analyst's: by signature where `feedback.analysts` names keys, else by permission alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.verdict import Verdict, signed_bytes
from stream.errors import DecodeError
from stream.feedback.inputs import Identity
from stream.runtime import signing


def identity_of(verdict: Verdict, plain: Mapping[str, Any], analysts: Mapping[str, str]) -> Identity:
    """How sure the analyst's name is.

    Parameters
    ----------
    plain
        The record as it came: the signature covers fields that this version does not know, too.
    analysts
        Analyst -> public key (base64); while it is empty, whoever may write to the topic is believed.

    Raises
    ------
    DecodeError
        `unknown_analyst` or `signature`: the verdict does not count.
    """
    if not analysts:
        return "unverified"
    key = analysts.get(verdict.analyst)
    if key is None:
        raise DecodeError(
            "unknown_analyst",
            f"$.analyst must be one of feedback.analysts; got {verdict.analyst!r}. Add the analyst's public key there.",
        )
    if verdict.signature is None:
        raise DecodeError("signature", "$.signature is missing: feedback.analysts asks for one. Sign the verdict.")
    if signing.verify(signed_bytes(dict(plain)), verdict.signature, [key]) is not None:
        raise DecodeError(
            "signature",
            f"$.signature must be made with the key of {verdict.analyst!r} in feedback.analysts over the verdict's "
            "sorted JSON; it is not, or the verdict was changed afterwards.",
        )
    return "verified"
