"""Validates findings against OCSF 1.8.0 with ocsf-json-schema, for any test that makes one."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema


@cache
def _validator() -> Draft202012Validator:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
    return Draft202012Validator(schema.get_class_schema(class_name="detection_finding", profiles=[]))


def finding_errors(finding: dict[str, Any]) -> list[str]:
    """What is wrong with `finding`, one line an error, each with its JSON path; empty when nothing is."""
    errors = [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(finding)]
    # The schema leaves these two to the caller: conventions ask for a title, OCSF's type_uid is a sum.
    if not finding.get("finding_info", {}).get("title"):
        errors.append("$.finding_info.title: required here")
    if finding.get("type_uid") != 200400 + finding.get("activity_id", 0):
        errors.append("$.type_uid: must be 200400 + activity_id")
    return errors


def assert_valid_finding(finding: dict[str, Any]) -> None:
    """Fail unless `finding` is an OCSF 1.8.0 Detection Finding."""
    errors = finding_errors(finding)
    assert not errors, "\n".join(errors)
