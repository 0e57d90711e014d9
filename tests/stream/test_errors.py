from stream import errors


def test_each_kind_of_failure_has_its_exit_code() -> None:
    codes = {
        errors.TidegateError: 1,
        errors.UsageError: 2,
        errors.EnvironmentFault: 3,
        errors.CheckFailed: 4,
        errors.StateError: 5,
        errors.FencedError: 6,
    }
    assert {kind: kind.exit_code for kind in codes} == codes
    assert all(issubclass(kind, errors.TidegateError) for kind in codes)


def test_a_decode_error_carries_the_reason_of_its_dead_letter() -> None:
    error = errors.DecodeError("too_deep", "$: nested 65 deep")
    assert (error.reason, str(error)) == ("too_deep", "$: nested 65 deep")
    assert not isinstance(error, errors.TidegateError)
